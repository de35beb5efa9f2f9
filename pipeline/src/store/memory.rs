//! Memory that the writer gives back and takes again.

/// Asks the C library to keep what is freed instead of giving it back to the system at once. A conversion takes and frees some ten
/// megabytes for each commit; to have every page of them given anew, and cleared, was a third of its work. It is for programs whose
/// work is to convert, since it holds for all of the process. Without effect where the library is another than GNU's.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const KEPT: libc::c_int = 256 << 20;
        /// Larger pieces come from the system one by one, and go back to it.
        const PIECE: libc::c_int = 32 << 20;
        // SAFETY: `mallopt` changes when memory is given back, and nothing about what is in use; it may be called at any time.
        #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            libc::mallopt(libc::M_MMAP_THRESHOLD, PIECE);
        }
    }
}
