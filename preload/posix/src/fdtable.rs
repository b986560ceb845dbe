//! Which descriptors are ours: fd -> [`File`].
//!
//! A look-up is one load of a two-level array of atomics for a descriptor that is not ours, and for one that is, that plus
//! taking a reference (Linux's `fget` on SLAB_TYPESAFE_BY_RCU memory: records are never freed, so a stale pointer may be
//! dereferenced; after the reference is taken the entry is read again). No lock, no allocation: a signal handler may look up.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::file::{File, FileRef};
use crate::process;

/// Descriptors from here on are never ours (Linux's default `fs.nr_open`).
pub const MAX_FD: usize = 1 << 20;
const CHUNK: usize = 1024;

struct Chunk {
    entries: [AtomicPtr<File>; CHUNK],
}

static CHUNKS: [AtomicPtr<Chunk>; MAX_FD / CHUNK] =
    [const { AtomicPtr::new(null_mut()) }; MAX_FD / CHUNK];

fn entry(fd: i32) -> Option<&'static AtomicPtr<File>> {
    let fd = usize::try_from(fd).ok()?;
    let chunk = CHUNKS.get(fd / CHUNK)?.load(Ordering::Acquire);
    // SAFETY: chunks are published whole and never freed.
    unsafe { chunk.as_ref() }.map(|c| &c.entries[fd % CHUNK])
}

fn entry_or_make(fd: i32) -> Option<&'static AtomicPtr<File>> {
    if let Some(e) = entry(fd) {
        return Some(e);
    }
    let slot = CHUNKS.get(usize::try_from(fd).ok()? / CHUNK)?;
    let fresh = Box::into_raw(Box::new(Chunk {
        entries: [const { AtomicPtr::new(null_mut()) }; CHUNK],
    }));
    if slot
        .compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        // SAFETY: another thread was faster; ours was never published.
        drop(unsafe { Box::from_raw(fresh) });
    }
    entry(fd)
}

/// True when the descriptor is ours at this moment.
#[inline]
#[must_use]
pub fn is_ours(fd: i32) -> bool {
    entry(fd).is_some_and(|e| !e.load(Ordering::Relaxed).is_null())
}

/// The file behind a descriptor, with a reference of the caller's own. None also for one that this process cannot use: its
/// calls find the kernel's shell of it.
#[inline]
#[must_use]
pub fn get(fd: i32) -> Option<FileRef> {
    let e = entry(fd)?;
    loop {
        let p = e.load(Ordering::Acquire);
        // SAFETY: records are never freed.
        let file = unsafe { p.as_ref() }?;
        let Some(r) = FileRef::try_get(file) else {
            // Its last reference just went; the entry changes or has changed.
            core::hint::spin_loop();
            continue;
        };
        if e.load(Ordering::Acquire) == p {
            if r.usable() {
                return Some(r);
            }
            process::foreign(fd, &r);
            return None;
        }
    }
}

/// Makes the descriptor ours. Gives back what stood there before, which was stale: the kernel gave the number anew.
///
/// # Errors
/// The reference itself, when the number is out of range: the descriptor stays the kernel's.
pub fn install(fd: i32, file: FileRef) -> Result<Option<FileRef>, FileRef> {
    let Some(e) = entry_or_make(fd) else {
        return Err(file);
    };
    let old = e.swap(file.into_raw(), Ordering::AcqRel);
    // SAFETY: the entry owned a reference, which is now ours.
    Ok(unsafe { FileRef::from_raw(old) })
}

/// Makes the descriptor the kernel's; gives back the reference that the entry held.
pub fn remove(fd: i32) -> Option<FileRef> {
    let old = entry(fd)?.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: the entry owned a reference, which is now ours.
    unsafe { FileRef::from_raw(old) }
}

/// Makes every descriptor of `file` the kernel's, and tells each to `f`.
pub fn remove_file(file: &File, mut f: impl FnMut(i32)) {
    for_each_entry(|fd, e| {
        let p = core::ptr::from_ref(file).cast_mut();
        if e.compare_exchange(p, null_mut(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            f(fd);
            // SAFETY: the entry owned a reference, which is now ours.
            drop(unsafe { FileRef::from_raw(p) });
        }
    });
}

/// True when the descriptor is one of `file`'s.
pub(crate) fn is_of(fd: i32, file: &File) -> bool {
    entry(fd).is_some_and(|e| core::ptr::eq(e.load(Ordering::SeqCst), file))
}

/// A descriptor of `file`, the lowest.
pub(crate) fn number_of(file: &File) -> Option<i32> {
    let mut found = None;
    for_each_entry(|fd, e| {
        if found.is_none() && core::ptr::eq(e.load(Ordering::Relaxed), file) {
            found = Some(fd);
        }
    });
    found
}

fn for_each_entry(mut f: impl FnMut(i32, &'static AtomicPtr<File>)) {
    for (i, chunk) in CHUNKS.iter().enumerate() {
        // SAFETY: chunks are published whole and never freed.
        let Some(chunk) = (unsafe { chunk.load(Ordering::Acquire).as_ref() }) else {
            continue;
        };
        for (j, e) in chunk.entries.iter().enumerate() {
            if !e.load(Ordering::Relaxed).is_null() {
                f((i * CHUNK + j) as i32, e);
            }
        }
    }
}

/// Calls `f` for every descriptor that is ours, in ascending order. `f` may remove it.
pub fn for_each(mut f: impl FnMut(i32)) {
    for_each_entry(|fd, _| f(fd));
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicBool;
    use sidewire_engine::SocketId;
    use slotmap::{Key, KeyData};

    /// An id that carries a number.
    fn id(n: u32) -> SocketId {
        KeyData::from_ffi(1 << 32 | u64::from(n)).into()
    }

    fn number(f: &FileRef) -> u32 {
        f.id().data().as_ffi() as u32
    }

    #[test]
    fn found_while_installed_shared_by_dups_recycled_after_the_last() {
        let (a, b) = (900_001, 900_002);
        assert!(!is_ours(a) && get(a).is_none());
        let file = File::open(None, id(7), false);
        let record = file.record() as *const File;
        assert!(install(a, file.clone()).is_ok_and(|old| old.is_none()));
        assert!(install(b, file).is_ok_and(|old| old.is_none()));
        assert_eq!(number(&get(a).unwrap()), 7);
        drop(remove(a));
        assert!(!is_ours(a));
        assert_eq!(number(&get(b).unwrap()), 7);
        let held = get(b).unwrap();
        drop(remove(b));
        assert_eq!(number(&held), 7, "a call in progress keeps it open");
        assert!(remove(b).is_none());
        drop(held);
        let mut others = Vec::new();
        // The record comes back (other tests take records too).
        while !others
            .iter()
            .any(|o: &FileRef| core::ptr::eq(o.record(), record))
        {
            assert!(others.len() < 10_000, "the record was not used again");
            others.push(File::open(None, id(8), false));
        }
    }

    #[test]
    fn numbers_out_of_range_are_the_kernels() {
        for fd in [-1, i32::MIN, MAX_FD as i32, i32::MAX] {
            assert!(!is_ours(fd) && get(fd).is_none() && remove(fd).is_none());
            assert!(install(fd, File::open(None, id(1), false)).is_err());
        }
    }

    #[test]
    fn removing_a_file_frees_all_its_numbers() {
        let file = File::open(None, id(3), false);
        for fd in [910_000, 910_500, 915_000] {
            assert!(install(fd, file.clone()).is_ok());
        }
        let other = File::open(None, id(4), false);
        assert!(install(910_001, other).is_ok());
        assert_eq!(number_of(&file), Some(910_000));
        let mut removed = Vec::new();
        remove_file(&file, |fd| removed.push(fd));
        assert_eq!(removed, [910_000, 910_500, 915_000]);
        assert_eq!(number_of(&file), None);
        assert!(!is_ours(910_500) && is_ours(910_001));
        drop(remove(910_001));
    }

    /// Two threads open and close the same few numbers, others look them up: whoever finds a file under a number finds one
    /// that was installed there, however often records change hands.
    #[test]
    fn look_ups_race_with_recycling() {
        const NUMBERS: u32 = 4;
        const ROUNDS: u32 = 20_000;
        const BASE: i32 = 920_000;
        let stop = AtomicBool::new(false);
        let found: usize = std::thread::scope(|s| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    s.spawn(|| {
                        let mut found = 0;
                        while !stop.load(Ordering::Relaxed) {
                            for n in 0..NUMBERS {
                                if let Some(f) = get(BASE + n as i32) {
                                    assert_eq!(number(&f) % NUMBERS, n);
                                    found += 1;
                                }
                            }
                        }
                        found
                    })
                })
                .collect();
            let writers: Vec<_> = (0..2u32)
                .map(|w| {
                    s.spawn(move || {
                        for i in 0..ROUNDS {
                            let n = (i + w) % NUMBERS;
                            let fd = BASE + n as i32;
                            let file = File::open(None, id(i * NUMBERS + n), false);
                            assert!(install(fd, file).is_ok());
                            if i % 3 != 0 {
                                drop(remove(fd));
                            }
                        }
                    })
                })
                .collect();
            for w in writers {
                w.join().unwrap();
            }
            // The last files stay until every reader has met one.
            for n in 0..NUMBERS {
                assert!(install(BASE + n as i32, File::open(None, id(n), false)).is_ok());
            }
            stop.store(true, Ordering::Relaxed);
            readers.into_iter().map(|r| r.join().unwrap()).sum()
        });
        assert!(found > 0);
        for n in 0..NUMBERS {
            drop(remove(BASE + n as i32));
        }
    }
}
