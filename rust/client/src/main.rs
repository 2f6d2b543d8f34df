//! The very beginning of the command `pyrt`, and what Rust takes for granted and a C library would have: see the
//! library beside this, which is all else.

#![no_std]
#![no_main]

extern crate alloc;

mod memory;

use alloc::format;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::ffi::{CStr, c_char};
use core::panic::PanicInfo;

use pyrt_client::given::Given;
use pyrt_client::heap::Heap;
use pyrt_client::{OWN_ERROR, sys};

#[global_allocator]
static HEAP: Heap = Heap::new();

// Where the kernel begins: at the top of the stack is what execve(2) was given. A function expects its stack at a
// multiple of 16 and its own return address on top of it.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

/// # Safety
/// `stack` is as execve(2) leaves it: the count of arguments, the arguments, a null, the environment, a null.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: what the caller promises; both lists end before their null.
    let (arguments, environment) = unsafe {
        let arguments = stack.add(1).cast::<*const c_char>();
        (texts(arguments), texts(arguments.add(*stack + 1)))
    };
    sys::exit(pyrt_client::main(Given { arguments: &arguments, environment: &environment }))
}

/// # Safety
/// C strings that live as long as the process, and then a null.
unsafe fn texts(mut next: *const *const c_char) -> Vec<&'static CStr> {
    let mut texts = Vec::with_capacity(64);
    // SAFETY: as the caller promises.
    unsafe {
        while !(*next).is_null() {
            texts.push(CStr::from_ptr(*next));
            next = next.add(1);
        }
    }
    texts
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = sys::write(2, format!("pyrt: something went wrong that should not have: {info}\n").as_bytes());
    sys::exit(OWN_ERROR)
}

// The `alloc` that comes with the compiler was made for programs that unwind, and names what does it. Nothing here
// unwinds: a panic ends the process.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(OWN_ERROR)
}
