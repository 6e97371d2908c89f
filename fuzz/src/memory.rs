//! A limit for the memory that one input may take.

use std::alloc::System;
use std::panic;
use std::sync::Once;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `work`; an allocation that makes it hold more than `limit_bytes` ends the program.
pub(crate) fn within<T>(limit_bytes: usize, work: impl FnOnce() -> T) -> T {
    if cfg!(test) {
        // Tests run beside each other, and would count each other's memory.
        return work();
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(lift_in_panics);
    let limit = ALLOCATOR.allocated().saturating_add(limit_bytes);
    ALLOCATOR.set_limit(limit).expect("a limit above what is there");
    let output = work();
    lift();
    output
}

/// A panic that is told with a backtrace takes more memory than any input.
fn lift_in_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        lift();
        tell(info);
    }));
}

fn lift() {
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
}
