//! How much memory a piece of work takes at most.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Bytes that the thread has taken and not given back since its count began, and the most of them.
    static TAKEN: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that ends has no count any more.
    let _ = TAKEN.try_with(|taken| {
        let (now, most) = taken.get();
        taken.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Does the work on this thread; what came of it, and how many bytes it held at once.
pub fn most<T>(work: impl FnOnce() -> T) -> (T, usize) {
    TAKEN.set((0, 0));
    let done = work();
    (done, usize::try_from(TAKEN.get().1).unwrap_or(0))
}

#[test]
fn what_is_taken_and_given_back_counts() {
    let (_, most) = most(|| drop([vec![0_u8; 1_000], vec![0; 2_000]]));
    assert!((3_000..4_000).contains(&most), "{most}");
}
