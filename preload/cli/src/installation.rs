//! Where the files that belong to this command lie.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{FileHeader64, SHN_UNDEF, SHT_DYNSYM};
use object::read::ReadCache;
use object::read::elf::{FileHeader, Sym};

use crate::reach;

/// The library's file name.
const LIBRARY: &str = "libsidewire.so";
/// A function of it, by which it is known.
const KNOWN_BY: &[u8] = b"sidewire_version";

/// A file in the directory that this program was started from.
pub(crate) fn beside_us(name: &str) -> Option<PathBuf> {
    let path = env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

/// The library: `$SIDEWIRE_LIBRARY`, else the one beside this program (a build
/// tree), else the one of the installation that this program belongs to.
///
/// # Errors
/// Where it was looked for, or why what is there is not it.
pub(crate) fn library() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("SIDEWIRE_LIBRARY") {
        let path = PathBuf::from(path);
        let checked = if path.is_file() {
            check(&path)
        } else {
            Err("no such file".to_owned())
        };
        return match checked {
            Ok(()) => Ok(path),
            Err(why) => Err(format!("SIDEWIRE_LIBRARY={}: {why}", path.display())),
        };
    }
    let program = env::current_exe().map_err(|error| format!("our own path: {error}"))?;
    let places = places(&program);
    let found = places.iter().find(|path| path.is_file());
    let path = found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        format!(
            "{LIBRARY} is not in any of {}; build it with `cargo build --release -p sidewire-shim`",
            places.join(", ")
        )
    })?;
    check(path).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(path.clone())
}

/// Whether a file is our library: the dynamic linker only says that it ignores anything else, and starts the program.
fn check(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    match exports(&ReadCache::new(file), KNOWN_BY) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(format!("this is no {LIBRARY} for this machine")),
    }
}

/// Whether an ELF file for this machine defines a dynamic symbol of that name.
fn exports(data: &ReadCache<File>, name: &[u8]) -> object::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    if header.e_machine(endian) != reach::our_machine() {
        return Ok(false);
    }
    let sections = header.sections(endian, data)?;
    let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
    Ok(symbols.iter().any(|symbol| {
        symbol.st_shndx(endian) != SHN_UNDEF
            && symbols.symbol_name(endian, symbol).is_ok_and(|n| n == name)
    }))
}

fn places(program: &Path) -> Vec<PathBuf> {
    // Debian's multiarch triplet.
    let private = format!("lib/{}-linux-gnu/sidewire", env::consts::ARCH);
    let mut places = vec![program.with_file_name(LIBRARY)];
    if let Some(prefix) = program.parent().and_then(Path::parent) {
        places.push(prefix.join(&private).join(LIBRARY));
        places.push(prefix.join("lib/sidewire").join(LIBRARY));
    }
    places.push(Path::new("/usr").join(private).join(LIBRARY));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_of_ours_is_refused() {
        let ourselves = env::current_exe().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        for path in [&ourselves, &sources] {
            let why = check(path).unwrap_err();
            assert!(why.contains("no libsidewire.so"), "{why}");
        }
        // It has dynamic symbols, of other names.
        let data = ReadCache::new(File::open(ourselves).unwrap());
        assert_eq!(exports(&data, KNOWN_BY), Ok(false));
    }

    #[test]
    fn build_tree_first_then_the_installation() {
        let places = places(Path::new("/usr/local/bin/sidewire"));
        assert_eq!(places[0], Path::new("/usr/local/bin/libsidewire.so"));
        let triplet = format!("{}-linux-gnu", env::consts::ARCH);
        assert_eq!(
            places[1],
            Path::new("/usr/local/lib")
                .join(&triplet)
                .join("sidewire/libsidewire.so")
        );
        assert_eq!(
            places.last().unwrap(),
            &Path::new("/usr/lib")
                .join(triplet)
                .join("sidewire/libsidewire.so")
        );
    }
}
