//! What neither std nor socket2 offers: pinning a thread to a core, and the limit on open files.
#![allow(unsafe_code)] // two system calls with plain structs

use std::io;

/// Pins the calling thread to this core.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set; `cpu` is within it as checked above; the kernel reads just
    // the size it is told, for the calling thread (0).
    let failed = unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the process's soft limit on open files to its hard limit; gives the limit now in force.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer and then a valid value to read, for the duration of the calls.
    let failed = unsafe {
        let mut failed = libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        if failed == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            failed = libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
        failed
    };
    if failed == 0 { Ok(limit.rlim_cur) } else { Err(io::Error::last_os_error()) }
}
