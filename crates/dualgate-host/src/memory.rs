//! What the allocator keeps back.

#![expect(unsafe_code, reason = "mimalloc declares its functions unsafe")]

/// Hands memory that is free back to the system. What this thread has freed is looked at, and what all threads have given up
/// waits for somebody who does this: by itself it goes with later allocations only, and a program at rest makes few. It takes
/// about a millisecond.
pub fn give_back() {
    // SAFETY: it may be called at any time, and also if another allocator is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
