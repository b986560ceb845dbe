//! Settings: the file, then the environment, read at the process's first TCP socket.
//!
//! Each key of the file has an environment variable: `stats` is `SIDEWIRE_STATS`. The file is `$SIDEWIRE_CONFIG`, else
//! `/etc/sidewire/config.toml` when it exists. A value that is not allowed is one line on standard error, and the default holds.

use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;

use crate::log;

/// Where the settings are looked for unless `SIDEWIRE_CONFIG` names another file.
const DEFAULT_FILE: &str = "/etc/sidewire/config.toml";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing but what ends the program.
    Off,
    /// What does not work as it should.
    Warn,
    /// Decisions: what is carried by whom, and why.
    Info,
}

/// Where explanations go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explain {
    /// Standard error.
    Stderr,
    /// Behind what is in this file.
    File(PathBuf),
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `enabled`: carry TCP at all.
    pub enabled: bool,
    /// `strict`: stop the program where its TCP would silently be the kernel's.
    pub strict: bool,
    /// `log`: off, warn or info.
    pub log: Level,
    /// `stats`: where the counters go when the process ends; `%p` stands for the process id.
    pub stats: Option<PathBuf>,
    /// `explain`: where it is told what each send goes through.
    pub explain: Option<Explain>,
    /// `pcap`: where a copy of every frame goes, as pcapng; `%p` stands for the process id.
    pub pcap: Option<PathBuf>,
    /// `inspect`: answer `sidewire status`, `ss` and `top` of the same user.
    pub inspect: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            strict: false,
            log: Level::Warn,
            stats: None,
            pcap: None,
            explain: None,
            inspect: true,
        }
    }
}

/// A key, or a value, that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    key: String,
    value: String,
    allowed: &'static str,
}

const KEYS: &str = "enabled, strict, log, stats, pcap, explain, inspect";

impl Config {
    /// Sets one key, by its name in the file.
    fn set(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        let refuse = |allowed| Refused {
            key: key.to_owned(),
            value: value.to_owned(),
            allowed,
        };
        let switch = || match value {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(refuse("1, true, yes, on, 0, false, no, off")),
        };
        let path = || match value {
            "" => None,
            path => Some(PathBuf::from(
                path.replace("%p", &std::process::id().to_string()),
            )),
        };
        match key {
            "enabled" => self.enabled = switch()?,
            "strict" => self.strict = switch()?,
            "inspect" => self.inspect = switch()?,
            "log" => {
                self.log = match value {
                    "off" => Level::Off,
                    "warn" => Level::Warn,
                    "info" => Level::Info,
                    _ => return Err(refuse("off, warn, info")),
                }
            }
            "stats" => self.stats = path(),
            "pcap" => self.pcap = path(),
            "explain" => {
                self.explain = match value {
                    "stderr" => Some(Explain::Stderr),
                    _ => path().map(Explain::File),
                }
            }
            _ => return Err(refuse(KEYS)),
        }
        Ok(())
    }

    /// Sets what a file's text says; whatever is refused is told to `complain`.
    fn read_text(&mut self, text: &str, mut complain: impl FnMut(Refused)) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => {
                return complain(Refused {
                    key: "syntax".to_owned(),
                    value: e.message().to_owned(),
                    allowed: "TOML: key = value",
                });
            }
        };
        for (key, value) in &table {
            let value = match value {
                toml::Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            if let Err(refused) = self.set(key, &value) {
                complain(refused);
            }
        }
    }

    fn read_file(&mut self, file: &Path, must_exist: bool) {
        let refuse = |r: Refused| {
            log::line(format_args!(
                "{}: {} = {:?}: allowed: {}",
                file.display(),
                r.key,
                r.value,
                r.allowed
            ));
        };
        let size = std::fs::metadata(file).map(|m| m.len());
        let text = match size {
            Ok(size) if size > MAX_FILE => {
                return log::line(format_args!(
                    "{}: {size} bytes: allowed: at most {MAX_FILE}",
                    file.display()
                ));
            }
            Ok(_) => std::fs::read_to_string(file),
            Err(e) => Err(e),
        };
        match text {
            Ok(text) => self.read_text(&text, refuse),
            Err(e) if must_exist => {
                log::line(format_args!("SIDEWIRE_CONFIG={}: {e}", file.display()))
            }
            Err(_) => {}
        }
    }

    fn read_environment(
        &mut self,
        vars: impl Iterator<Item = (String, String)>,
        mut complain: impl FnMut(Refused),
    ) {
        for (name, value) in vars {
            let Some(key) = name.strip_prefix("SIDEWIRE_").map(str::to_lowercase) else {
                continue;
            };
            // Not ours to read: where the file is, and what tests and the launcher use.
            if !KEYS.split(", ").any(|k| k == key) {
                continue;
            }
            if let Err(mut refused) = self.set(&key, &value) {
                refused.key = name;
                complain(refused);
            }
        }
    }

    fn load() -> Self {
        let mut config = Self::default();
        match std::env::var_os("SIDEWIRE_CONFIG") {
            Some(file) => config.read_file(Path::new(&file), true),
            None => config.read_file(Path::new(DEFAULT_FILE), false),
        }
        let vars = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        config.read_environment(vars, |r| {
            log::line(format_args!(
                "{}={:?}: allowed: {}",
                r.key, r.value, r.allowed
            ));
        });
        config
    }
}

/// Whether `key`, by its name in the file, may be `value`.
///
/// # Errors
/// One line that names the key, the value and what is allowed.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    Config::default()
        .set(key, value)
        .map_err(|r| format!("{} = {:?}: allowed: {}", r.key, r.value, r.allowed))
}

static CONFIG: OnceCell<Config> = OnceCell::new();

/// The settings; read when asked for the first time, which is at the first TCP socket.
pub fn get() -> &'static Config {
    CONFIG.get_or_init(Config::load)
}

/// The settings if they have been read: whether this process has used TCP. Reads nothing.
pub fn loaded() -> Option<&'static Config> {
    CONFIG.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> (Config, Vec<Refused>) {
        let mut config = Config::default();
        let mut refused = Vec::new();
        config.read_text(text, |r| refused.push(r));
        (config, refused)
    }

    #[test]
    fn file_and_environment_set_the_same_keys() {
        let (config, refused) = from_file("strict = true\nlog = \"info\"\nstats = \"/tmp/s.%p\"\n");
        assert!(refused.is_empty());
        assert!(config.strict && config.enabled);
        assert_eq!(config.log, Level::Info);
        let file = format!("/tmp/s.{}", std::process::id());
        assert_eq!(config.stats.as_deref(), Some(Path::new(&file)));

        let mut config = config;
        let vars = [
            ("SIDEWIRE_STRICT", "0"),
            ("SIDEWIRE_LIBRARY", "x"),
            ("HOME", "/"),
            ("SIDEWIRE_PCAP", "p"),
            ("SIDEWIRE_EXPLAIN", "stderr"),
        ];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
        config.read_environment(vars.into_iter(), |r| panic!("{r:?}"));
        assert!(!config.strict);
        assert_eq!(config.pcap.as_deref(), Some(Path::new("p")));
        assert_eq!(config.explain, Some(Explain::Stderr));
    }

    #[test]
    fn a_bad_value_names_key_value_and_what_is_allowed() {
        let (config, refused) = from_file("strict = \"maybe\"\nlgo = \"info\"\nlog = 3\n");
        assert_eq!(config, Config::default());
        assert_eq!(refused.len(), 3);
        let strict = refused.iter().find(|r| r.key == "strict").unwrap();
        assert_eq!(strict.value, "maybe");
        assert!(strict.allowed.contains("true"));
        let unknown = refused.iter().find(|r| r.key == "lgo").unwrap();
        assert_eq!(unknown.allowed, KEYS);
        let (config, refused) = from_file("= nonsense");
        assert_eq!(config, Config::default());
        assert_eq!(refused.len(), 1);
    }
}
