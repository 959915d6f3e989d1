//! What the kernel says about processes on this machine: CPU time and memory, from `/proc`.

use std::fs;

/// Nanoseconds of CPU that these processes have used, all their threads together: the scheduler's own account, which
/// is exact where the clock ticks of `stat` are not. Threads that have ended are not in it.
pub(crate) fn cpu_ns(pids: &[u32]) -> u64 {
    let tasks = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    tasks.flatten().flatten().filter_map(|task| schedstat(&task.path().join("schedstat"))).sum()
}

/// Nanoseconds of CPU that the calling thread has used.
pub(crate) fn thread_cpu_ns() -> u64 {
    schedstat("/proc/thread-self/schedstat".as_ref()).unwrap_or(0)
}

/// Bytes of memory that these processes have resident.
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    let status = pids.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    status.filter_map(|s| vm_rss(&s)).sum()
}

/// Whether there is such a process.
pub(crate) fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}/task")).unwrap_or(false)
}

fn schedstat(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_cpu() {
        let me = std::process::id();
        assert!(exists(me));
        assert!(resident_bytes(&[me]) > 100_000);
        let before = thread_cpu_ns();
        let mut x = 1u64;
        while thread_cpu_ns() < before + 1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(cpu_ns(&[me]) >= 1_000_000);
    }

    #[test]
    fn an_ended_process_reports_no_memory_and_no_cpu() {
        assert_eq!((cpu_ns(&[u32::MAX]), resident_bytes(&[u32::MAX])), (0, 0));
        assert!(!exists(u32::MAX));
        assert_eq!(vm_rss("VmRSS:\t  12 kB\n"), Some(12 * 1024));
    }
}
