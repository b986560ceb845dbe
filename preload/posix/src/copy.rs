//! Copies between our memory and the program's that survive a bad pointer, as the kernel's `copy_from_user` does.
//!
//! The copy routine is a few instructions of assembly between two labels. When the handler of SIGSEGV and SIGBUS finds the
//! faulting instruction there ([`fixup`]), it continues at the label behind them and the routine returns how many bytes were
//! not copied. A good pointer costs nothing extra. While no such handler is in place ([`set_handler_in_place`]),
//! `process_vm_readv`/`writev` copy and check: right, but slower. The routine that reads a byte of each page
//! ([`touch_pages`]) lies between the same labels.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use sidewire_engine::memory::Fault;

use crate::syscall;

// sidewire_copy_bytes: rdi = destination, rsi = source, rdx = bytes; returns the bytes left in rax.
// sidewire_touch_pages: rdi = address, rsi = pages, not 0; returns the pages left in rax.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.sidewire_copy,\"ax\",@progbits",
    ".p2align 6",
    ".hidden sidewire_copy_bytes",
    ".hidden sidewire_copy_end",
    ".hidden sidewire_copy_fixup",
    ".globl sidewire_copy_bytes",
    ".globl sidewire_copy_end",
    ".globl sidewire_copy_fixup",
    ".type sidewire_copy_bytes,@function",
    "sidewire_copy_bytes:",
    "mov rcx, rdx",
    // The microcode of `rep movsb` takes longer to begin than a few words take to copy.
    "cmp rcx, 128",
    "ja 3f",
    "1:",
    "cmp rcx, 8",
    "jb 2f",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 1b",
    "2:",
    "test rcx, rcx",
    "jz 4f",
    "mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jmp 2b",
    // Where both sides lie alike within a cache line it is the fastest there is; else it takes a quarter longer, and sixteen
    // times as long where the destination is 1 to 15 bytes further into its page than the source (measured, AMD's Zen 4).
    "3:",
    "mov eax, edi",
    "xor eax, esi",
    "test al, 63",
    "jnz 5f",
    "rep movsb",
    "4:",
    "mov rax, rcx",
    "ret",
    // To a multiple of 16 by one unaligned store, then on in aligned ones.
    "5:",
    "movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "mov eax, edi",
    "neg eax",
    "and eax, 15",
    "add rsi, rax",
    "add rdi, rax",
    "sub rcx, rax",
    "6:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "movaps [rdi], xmm0",
    "movaps [rdi + 16], xmm1",
    "movaps [rdi + 32], xmm2",
    "movaps [rdi + 48], xmm3",
    "add rsi, 64",
    "add rdi, 64",
    "sub rcx, 64",
    "cmp rcx, 64",
    "jae 6b",
    "jmp 1b",
    ".size sidewire_copy_bytes, . - sidewire_copy_bytes",
    ".hidden sidewire_touch_pages",
    ".globl sidewire_touch_pages",
    ".type sidewire_touch_pages,@function",
    "sidewire_touch_pages:",
    "mov rcx, rsi",
    "2:",
    "mov al, byte ptr [rdi]",
    "add rdi, 4096",
    "dec rcx",
    "jnz 2b",
    "sidewire_copy_end:",
    "sidewire_copy_fixup:",
    "mov rax, rcx",
    "ret",
    ".size sidewire_touch_pages, . - sidewire_touch_pages",
    ".popsection",
);

// sidewire_copy_bytes: x0 = destination, x1 = source, x2 = bytes; returns the bytes left in x0.
// sidewire_touch_pages: x0 = address, x1 = pages, not 0; returns the pages left in x0.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.sidewire_copy,\"ax\",@progbits",
    ".p2align 6",
    ".hidden sidewire_copy_bytes",
    ".hidden sidewire_copy_end",
    ".hidden sidewire_copy_fixup",
    ".globl sidewire_copy_bytes",
    ".globl sidewire_copy_end",
    ".globl sidewire_copy_fixup",
    ".type sidewire_copy_bytes,@function",
    "sidewire_copy_bytes:",
    "1:",
    "cmp x2, #32",
    "b.lo 2f",
    "ldp x3, x4, [x1]",
    "ldp x5, x6, [x1, #16]",
    "stp x3, x4, [x0]",
    "stp x5, x6, [x0, #16]",
    "add x0, x0, #32",
    "add x1, x1, #32",
    "sub x2, x2, #32",
    "b 1b",
    "2:",
    "cbz x2, 3f",
    "ldrb w3, [x1], #1",
    "strb w3, [x0], #1",
    "sub x2, x2, #1",
    "b 2b",
    "3:",
    "mov x0, x2",
    "ret",
    ".size sidewire_copy_bytes, . - sidewire_copy_bytes",
    ".hidden sidewire_touch_pages",
    ".globl sidewire_touch_pages",
    ".type sidewire_touch_pages,@function",
    "sidewire_touch_pages:",
    "mov x2, x1",
    "4:",
    "ldrb w3, [x0]",
    "add x0, x0, #4096",
    "subs x2, x2, #1",
    "b.ne 4b",
    "sidewire_copy_end:",
    "sidewire_copy_fixup:",
    "mov x0, x2",
    "ret",
    ".size sidewire_touch_pages, . - sidewire_touch_pages",
    ".popsection",
);

unsafe extern "C" {
    fn sidewire_copy_bytes(dst: *mut u8, src: *const u8, len: usize) -> usize;
    fn sidewire_touch_pages(at: *const u8, pages: usize) -> usize;
    static sidewire_copy_end: u8;
    static sidewire_copy_fixup: u8;
}

/// Smallest page of the architectures, in bytes: where pages are larger, some are touched more than once.
const PAGE_SIZE: usize = 4096;

static HANDLER: AtomicBool = AtomicBool::new(false);

/// Says whether a handler of SIGSEGV and SIGBUS that calls [`fixup`] is in place.
pub fn set_handler_in_place(yes: bool) {
    HANDLER.store(yes, Ordering::Release);
}

/// For that handler: where to continue when the instruction at `ip` faulted, `None` when it is not the copy routine's.
#[must_use]
pub fn fixup(ip: usize) -> Option<usize> {
    let start = sidewire_copy_bytes as *const () as usize;
    let end = &raw const sidewire_copy_end as usize;
    (start..end)
        .contains(&ip)
        .then_some(&raw const sidewire_copy_fixup as usize)
}

/// Copies `len` bytes of the program's memory at `src` to `dst`.
///
/// # Errors
/// `Fault` when not all of it can be read; part may have been copied.
///
/// # Safety
/// `dst` is ours to write, `len` bytes. `src` may be anything.
#[inline]
pub unsafe fn from_program(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let left = if HANDLER.load(Ordering::Acquire) {
        // SAFETY: `dst` by the caller; a fault in `src` is fixed up.
        unsafe { sidewire_copy_bytes(dst, src, len) }
    } else {
        checked(src, dst, len, false)
    };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies `len` bytes at `src` to the program's memory at `dst`.
///
/// # Errors
/// `Fault` when not all of it can be written; part may have been copied.
///
/// # Safety
/// `src` is readable, `len` bytes. `dst` is what the program gave for writing; it may be anything.
#[inline]
pub unsafe fn to_program(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    let left = if HANDLER.load(Ordering::Acquire) {
        // SAFETY: `src` by the caller; a fault in `dst` is fixed up.
        unsafe { sidewire_copy_bytes(dst, src, len) }
    } else {
        checked(dst, src, len, true)
    };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// Reads a byte of each page of `len` bytes at `at`, and answers how many of them can be read: what `get_user_pages` finds out.
///
/// # Errors
/// `Fault` when the first page cannot be read.
#[inline]
pub fn touch_pages(at: *const u8, len: usize) -> Result<usize, Fault> {
    if len == 0 {
        return Ok(0);
    }
    let first = at as usize & !(PAGE_SIZE - 1);
    let end = (at as usize).checked_add(len).ok_or(Fault)?;
    let pages = (end - first).div_ceil(PAGE_SIZE);
    let before = at as usize - first;
    let first = at.wrapping_sub(before);
    let good = if HANDLER.load(Ordering::Acquire) {
        // SAFETY: reads only; a fault is fixed up.
        pages - unsafe { sidewire_touch_pages(first, pages) }
    } else {
        let readable = |at: *const u8, pages| {
            let populate = libc::MADV_POPULATE_READ;
            syscall::madvise(at.cast_mut(), pages * PAGE_SIZE, populate).is_ok()
        };
        if readable(first, pages) {
            pages
        } else {
            let each = (0..pages).map(|page| first.wrapping_add(page * PAGE_SIZE));
            each.take_while(|at| readable(*at, 1)).count()
        }
    };
    match good {
        0 => Err(Fault),
        good => Ok(len.min(good * PAGE_SIZE - before)),
    }
}

/// Makes sure that `len` bytes at `at` can be written, by writing to each page of them: they are about to be filled.
///
/// # Errors
/// `Fault` when a page cannot be written.
#[inline]
pub fn make_writable(at: *mut u8, len: usize) -> Result<(), Fault> {
    if len == 0 {
        return Ok(());
    }
    let end = (at as usize).checked_add(len).ok_or(Fault)?;
    if !HANDLER.load(Ordering::Acquire) {
        let first = at.wrapping_sub(at as usize % PAGE_SIZE);
        let populate = libc::MADV_POPULATE_WRITE;
        return syscall::madvise(first, end - first as usize, populate).map_err(|_| Fault);
    }
    let mut p = at;
    while (p as usize) < end {
        // SAFETY: a live local; what the program gave for writing.
        unsafe { to_program(p, &0, 1)? };
        p = p.wrapping_add(PAGE_SIZE - p as usize % PAGE_SIZE);
    }
    Ok(())
}

#[cold]
fn checked(program: *const u8, own: *const u8, len: usize, to_program: bool) -> usize {
    let mut done = 0;
    while done < len {
        let (p, o) = (program.wrapping_add(done), own.wrapping_add(done));
        match syscall::checked_copy(p, o, len - done, to_program) {
            Ok(n) if n > 0 => done += n,
            _ => break,
        }
    }
    len - done
}

/// Reads a value of the program's.
///
/// # Errors
/// `Fault` when it cannot be read.
///
/// # Safety
/// Any bytes make a valid `T`.
pub unsafe fn read_value<T: Copy>(src: *const T) -> Result<T, Fault> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination is ours; it is whole when the copy succeeded, and any bytes make a T.
    unsafe {
        from_program(value.as_mut_ptr().cast(), src.cast(), size_of::<T>())?;
        Ok(value.assume_init())
    }
}

/// Writes a value to the program's memory.
///
/// # Errors
/// `Fault` when it cannot be written.
///
/// # Safety
/// `dst` is what the program gave for writing.
pub unsafe fn write_value<T: Copy>(dst: *mut T, value: &T) -> Result<(), Fault> {
    // SAFETY: a live reference is readable.
    unsafe {
        to_program(
            dst.cast(),
            core::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals;

    /// Two pages of which the second may not be touched; the end of the first.
    fn edge() -> *mut u8 {
        let at = syscall::map_anonymous(8192).unwrap();
        // SAFETY: our own fresh mapping.
        unsafe {
            syscalls::syscall!(
                syscalls::Sysno::mprotect,
                at.add(4096),
                4096,
                libc::PROT_NONE
            )
            .unwrap();
            at.add(4096)
        }
    }

    fn good_and_bad() {
        let end = edge();
        let text = *b"0123456789abcdef";
        let mut back = [0u8; 16];
        // SAFETY: live locals on our side; the program's side is the edge page.
        unsafe {
            let fits = end.sub(16);
            assert_eq!(to_program(fits, text.as_ptr(), 16), Ok(()));
            assert_eq!(from_program(back.as_mut_ptr(), fits, 16), Ok(()));
            assert_eq!(back, text);
            let last = u64::from_ne_bytes(*b"89abcdef");
            assert_eq!(read_value(end.sub(8).cast::<u64>()), Ok(last));
            assert!(read_value(end.sub(4).cast::<u64>()).is_err());
            for over in [1, 8, 15] {
                let at = end.sub(16 - over);
                assert_eq!(to_program(at, text.as_ptr(), 16), Err(Fault));
                assert_eq!(from_program(back.as_mut_ptr(), at, 16), Err(Fault));
            }
            assert_eq!(touch_pages(end.sub(4096), 4096), Ok(4096));
            assert_eq!(touch_pages(end.sub(1), 1), Ok(1));
            assert_eq!(touch_pages(end.sub(1), 2), Ok(1));
            assert_eq!(touch_pages(end.sub(4096), 4097), Ok(4096));
            assert_eq!(touch_pages(end, 1), Err(Fault));
            for nowhere in [core::ptr::null_mut(), 8 as *mut u8, usize::MAX as *mut u8] {
                assert_eq!(touch_pages(nowhere, 4), Err(Fault));
                assert_eq!(touch_pages(nowhere, 0), Ok(0));
                assert_eq!(to_program(nowhere, text.as_ptr(), 4), Err(Fault));
                assert_eq!(from_program(back.as_mut_ptr(), nowhere, 4), Err(Fault));
                assert_eq!(from_program(back.as_mut_ptr(), nowhere, 0), Ok(()));
            }
        }
    }

    /// Every way through the routine: lengths around its limits, and sides that lie alike and that do not.
    #[test]
    fn copies_are_whole_at_every_alignment() {
        assert!(signals::catch_faults(fixup));
        set_handler_in_place(true);
        let source: Vec<u8> = (0..1000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for len in [0, 1, 7, 8, 127, 128, 129, 143, 144, 191, 192, 200, 255, 777] {
            for (from, to) in (0..66).flat_map(|from| [0, 1, 15, 16, 64].map(|to| (from, to))) {
                let mut copy = vec![0xff; 900];
                let (src, dst) = (source[from..].as_ptr(), copy[to..].as_mut_ptr());
                // SAFETY: both sides hold `len` bytes from there on.
                assert_eq!(unsafe { from_program(dst, src, len) }, Ok(()));
                assert_eq!(copy[to..to + len], source[from..from + len]);
                assert!(
                    copy[..to]
                        .iter()
                        .chain(&copy[to + len..])
                        .all(|b| *b == 0xff)
                );
            }
        }
    }

    /// The blocks of long copies end at a page that is not there.
    #[test]
    fn long_copies_over_the_edge_are_faults() {
        assert!(signals::catch_faults(fixup));
        set_handler_in_place(true);
        let end = edge();
        let mut own = [0u8; 1024];
        for (over, shift) in (1..140).flat_map(|over| [0, 3].map(|shift| (over, shift))) {
            // SAFETY: `own` holds 900 bytes from `shift` on; the other side is the edge page.
            unsafe {
                let at = end.sub(900 - over);
                assert_eq!(to_program(at, own[shift..].as_ptr(), 900), Err(Fault));
                assert_eq!(from_program(own[shift..].as_mut_ptr(), at, 900), Err(Fault));
            }
        }
    }

    #[test]
    fn bad_pointers_are_faults() {
        good_and_bad();
        assert!(signals::catch_faults(fixup));
        set_handler_in_place(true);
        good_and_bad();
        assert_eq!(fixup(good_and_bad as *const () as usize), None);
    }
}
