//! Where the files that belong to this command lie.

use std::env;
use std::path::{Path, PathBuf};

/// The library's file name.
const LIBRARY: &str = "libsidewire.so";

/// A file in the directory that this program was started from.
pub(crate) fn beside_us(name: &str) -> Option<PathBuf> {
    let path = env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

/// The library: `$SIDEWIRE_LIBRARY`, else the one beside this program (a build
/// tree), else the one of the installation that this program belongs to.
///
/// # Errors
/// Where it was looked for.
pub(crate) fn library() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("SIDEWIRE_LIBRARY") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("SIDEWIRE_LIBRARY={}: no such file", path.display()))
        };
    }
    let program = env::current_exe().map_err(|error| format!("our own path: {error}"))?;
    let places = places(&program);
    places
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            format!(
                "{LIBRARY} is not in any of {}; build it with `cargo build --release -p sidewire-shim`",
                places.join(", ")
            )
        })
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
