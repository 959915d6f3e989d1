//! Memory of the heap that is free and goes back to the system. No safe crate offers this call.
#![allow(unsafe_code)]

/// Gives free pages of the C library's heap back to the system, those between allocations too; by itself glibc gives back
/// only what is free at a heap's end. Takes some 0.3 ms for each MiB that goes back, and other threads that allocate from
/// the same arena wait for it. Where the program has an allocator of its own, it finds nothing to do.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim takes no pointer, locks each arena while it works there (it is MT-Safe), and touches only memory
    // that is not allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries have no such call, or do it by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim_heap() {}
