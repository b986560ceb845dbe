//! Settings: the host's file, the user's, the environment, in this order, read at the process's first TCP socket.
//!
//! Each key of a file has an environment variable: `stats` is `SIDEWIRE_STATS`. The files are
//! `/etc/sidewire/config.toml` and `~/.config/sidewire/config.toml` where they exist; `$SIDEWIRE_CONFIG` takes the place of
//! both. A value that is not allowed is one line on standard error, and the default holds.

use core::net::SocketAddr;
use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;

use crate::{log, signals};

pub mod rules;

use rules::{Direction, Rule};

/// The host's settings.
const HOST_FILE: &str = "/etc/sidewire/config.toml";
/// The user's, below `$XDG_CONFIG_HOME` or `~/.config`.
const USER_FILE: &str = "sidewire/config.toml";
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

/// What `sidewire run` gives a program that may not open packet sockets itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capability {
    /// Sockets that are open already.
    #[default]
    Sockets,
    /// CAP_NET_RAW, for it and all that it starts.
    Ambient,
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
    /// `capability`: what `sidewire run` gives a program without CAP_NET_RAW. The library does not ask.
    pub capability: Capability,
    /// `congestion`: the congestion control of new sockets, in place of the host's and the routes'.
    pub congestion: Option<String>,
    /// `message_options`: a message's own SO_MARK and SCM_TXTIME count for its segments.
    pub message_options: bool,
    /// `zerocopy_rtx`: retransmissions of zerocopy data come from a copy (`copy`), or from the program's pages as Linux's
    /// do (`pages`).
    pub zerocopy_rtx_copy: bool,
    /// `[[rule]]`: which connections are carried; those of the user before those of the host.
    pub rules: Vec<Rule>,
    /// The program's names, which rules ask for: that of its file, and that which it was started by.
    pub programs: Vec<String>,
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
            capability: Capability::Sockets,
            congestion: None,
            message_options: false,
            zerocopy_rtx_copy: false,
            rules: Vec::new(),
            programs: Vec::new(),
        }
    }
}

/// A key, or a value, that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    key: String,
    value: String,
    allowed: &'static str,
    /// The key that was meant, as it seems.
    meant: Option<String>,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} = {:?}: ", self.key, self.value)?;
        if let Some(meant) = &self.meant {
            write!(f, "did you mean {meant}? ")?;
        }
        write!(f, "allowed: {}", self.allowed)
    }
}

/// Where lines about wrong settings go.
pub type Say = fn(core::fmt::Arguments<'_>);

const KEYS: &str = "enabled, strict, log, stats, pcap, explain, inspect, capability, congestion, \
                    message_options, zerocopy_rtx";
/// The table of profiles: `[profile.NAME]` holds keys that count when `NAME` is chosen.
const PROFILE: &str = "profile";
/// The array of rules.
const RULE: &str = "rule";
/// What may stand there in their place.
const PROFILES: &str = "[profile.NAME] tables in the file of the settings, with keys of their own";
const RULES: &str = "[[rule]] tables in the file of the settings";
/// Variables of the environment that are no settings: where those are, what the launcher hands over, and what tests ask for.
const OTHER_VARIABLES: [&str; 7] = [
    "SIDEWIRE_CONFIG",
    "SIDEWIRE_PROFILE",
    "SIDEWIRE_LIBRARY",
    "SIDEWIRE_SOCKETS",
    "SIDEWIRE_LONG",
    "SIDEWIRE_SIM_SEED",
    "SIDEWIRE_WRITE_HEADER",
];
/// How the names of variables begin that one test sets for its own child.
const TEST_VARIABLES: &str = "SIDEWIRE_TEST_";
const VARIABLES: &str = "SIDEWIRE_CONFIG, SIDEWIRE_PROFILE, SIDEWIRE_LIBRARY, and SIDEWIRE_KEY \
                         for each key of sidewire.toml(5)";
/// Names that are this much alike are taken for a slip.
const ALIKE: f64 = 0.5;

/// The key most like a wrong one.
fn nearest(key: &str) -> Option<&'static str> {
    let alike = |known: &&'static str| strsim::normalized_damerau_levenshtein(known, key);
    let all = KEYS.split(", ").chain([RULE, PROFILE]);
    all.max_by(|a, b| alike(a).total_cmp(&alike(b)))
        .filter(|known| alike(known) > ALIKE)
}

/// The environment variable of a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("SIDEWIRE_{}", key.to_ascii_uppercase())
}

/// Keys whose value names a file: nothing else than a string is meant for one.
const PATHS: [&str; 3] = ["stats", "pcap", "explain"];

/// A value as one line.
fn shown(value: &toml::Value) -> String {
    value.to_string().trim_end().replace('\n', ", ")
}

/// What is wrong with a file that is no TOML, and where.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = 1 + before.unwrap_or_default().matches('\n').count();
    format!(
        "line {line}: {}; nothing of this file counts",
        error.message()
    )
}

impl Config {
    /// Sets one key, by its name in the file.
    fn set(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        let refuse = |allowed| Refused {
            key: key.to_owned(),
            value: value.to_owned(),
            allowed,
            meant: None,
        };
        let switch = || match value {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(refuse("1, true, yes, on, 0, false, no, off")),
        };
        let path = || match value {
            "" => None,
            path => Some(PathBuf::from(path)),
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
            "capability" => {
                self.capability = match value {
                    "sockets" => Capability::Sockets,
                    "ambient" => Capability::Ambient,
                    _ => return Err(refuse("sockets, ambient")),
                }
            }
            "congestion" => {
                self.congestion = match value {
                    "" => None,
                    "cubic" | "reno" | "bbr" => Some(value.to_owned()),
                    _ => return Err(refuse("cubic, reno, bbr")),
                }
            }
            "message_options" => self.message_options = switch()?,
            "zerocopy_rtx" => {
                self.zerocopy_rtx_copy = match value {
                    "pages" => false,
                    "copy" => true,
                    _ => return Err(refuse("pages, copy")),
                }
            }
            RULE => return Err(refuse(RULES)),
            PROFILE => return Err(refuse(PROFILES)),
            _ => {
                return Err(Refused {
                    meant: nearest(key).map(str::to_owned),
                    ..refuse(KEYS)
                });
            }
        }
        Ok(())
    }

    /// Sets the keys of a table; rules go before those that are there.
    fn read_table(&mut self, table: &toml::Table, mut complain: impl FnMut(Refused)) {
        let mut rules = Vec::new();
        for (key, value) in table {
            let refused = match (key.as_str(), value) {
                (RULE, toml::Value::Array(all)) if all.iter().all(toml::Value::is_table) => {
                    let tables = all.iter().filter_map(toml::Value::as_table);
                    for rule in tables.map(Rule::read) {
                        match rule {
                            Ok(rule) => rules.push(rule),
                            Err(refused) => complain(refused),
                        }
                    }
                    None
                }
                (key, toml::Value::String(s)) => self.set(key, s).err(),
                (key, other) if PATHS.contains(&key) => Some(Refused {
                    key: key.to_owned(),
                    value: shown(other),
                    allowed: "a path in quotes",
                    meant: None,
                }),
                (key, other) => self.set(key, &shown(other)).err(),
            };
            if let Some(refused) = refused {
                complain(refused);
            }
        }
        self.rules.splice(0..0, rules);
    }

    /// Sets what a file's text says, and what it says of the profile; whatever is refused is told to `complain`, of the other
    /// profiles, too. True when it has that profile.
    ///
    /// # Errors
    /// What is no TOML, in words: nothing is set.
    fn read_text(
        &mut self,
        text: &str,
        profile: Option<&str>,
        mut complain: impl FnMut(Refused),
    ) -> Result<bool, String> {
        let mut table: toml::Table = text.parse().map_err(|e| syntax(text, &e))?;
        let profiles = match table.remove(PROFILE) {
            Some(toml::Value::Table(all)) if all.values().all(toml::Value::is_table) => all,
            Some(other) => {
                // Refused with the keys.
                table.insert(PROFILE.to_owned(), other);
                toml::Table::new()
            }
            None => toml::Table::new(),
        };
        self.read_table(&table, &mut complain);
        let mut found = false;
        for (name, keys) in &profiles {
            let chosen = profile == Some(name);
            found |= chosen;
            let mut other = Self::default();
            let config = if chosen { &mut *self } else { &mut other };
            let complain = |refused: Refused| {
                let key = format!("{PROFILE}.{name}.{}", refused.key);
                complain(Refused { key, ..refused });
            };
            if let Some(keys) = keys.as_table() {
                config.read_table(keys, complain);
            }
        }
        Ok(found)
    }

    /// Reads a file; true when it has the profile.
    fn read_file(
        &mut self,
        file: &Path,
        profile: Option<&str>,
        must_exist: bool,
        say: Say,
    ) -> bool {
        let refuse = |r: Refused| say(format_args!("{}: {r}", file.display()));
        let size = std::fs::metadata(file).map(|m| m.len());
        let text = match size {
            Ok(size) if size > MAX_FILE => {
                say(format_args!(
                    "{}: {size} bytes: allowed: at most {MAX_FILE}",
                    file.display()
                ));
                return false;
            }
            Ok(_) => std::fs::read_to_string(file),
            // Nor is one missed that is out of sight, as in the home of the user that a daemon was.
            Err(_) if !must_exist => return false,
            Err(e) => Err(e),
        };
        match text {
            Ok(text) => match self.read_text(&text, profile, refuse) {
                Ok(found) => return found,
                Err(e) => say(format_args!("{}: {e}", file.display())),
            },
            Err(e) if must_exist => say(format_args!("SIDEWIRE_CONFIG={}: {e}", file.display())),
            Err(e) => say(format_args!(
                "{}: {e}; nothing of this file counts",
                file.display()
            )),
        }
        false
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
            if OTHER_VARIABLES.contains(&name.as_str()) || name.starts_with(TEST_VARIABLES) {
                continue;
            }
            let refused = if KEYS.split(", ").any(|k| k == key) {
                self.set(&key, &value).err()
            } else {
                let known = nearest(&key).filter(|known| *known != RULE);
                Some(Refused {
                    key: String::new(),
                    value,
                    allowed: VARIABLES,
                    meant: known.map(variable),
                })
            };
            if let Some(refused) = refused {
                complain(Refused {
                    key: name,
                    ..refused
                });
            }
        }
    }

    /// Reads the files and the environment; `profile` is the one whose keys count, and `say` gets what is wrong, a line
    /// each.
    #[must_use]
    pub fn load(profile: Option<&str>, say: Say) -> Self {
        // A link to the program has another name than its file.
        let files = [
            std::env::current_exe().ok(),
            std::env::args_os().next().map(PathBuf::from),
        ];
        let names = files.iter().flatten();
        let names = names.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()));
        let mut config = Self {
            programs: names.collect(),
            ..Self::default()
        };
        let found = match std::env::var_os("SIDEWIRE_CONFIG") {
            Some(file) => config.read_file(Path::new(&file), profile, true, say),
            None => {
                let of_host = config.read_file(Path::new(HOST_FILE), profile, false, say);
                user_file().is_some_and(|file| config.read_file(&file, profile, false, say))
                    || of_host
            }
        };
        if let (Some(name), false) = (profile, found) {
            say(format_args!(
                "SIDEWIRE_PROFILE={name:?}: allowed: a table [{PROFILE}.NAME] of the settings"
            ));
        }
        let vars = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        config.read_environment(vars, |r| say(format_args!("{r}")));
        config
    }

    /// Whether the rules let the engine carry a connection.
    #[must_use]
    pub fn accelerates(&self, direction: Direction, address: SocketAddr) -> bool {
        rules::accelerate(&self.rules, &self.programs, direction, address)
    }
}

/// The user's settings.
fn user_file() -> Option<PathBuf> {
    let below = |name: &str| std::env::var_os(name).filter(|dir| Path::new(dir).is_absolute());
    let base = below("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(below("HOME")?).join(".config")))?;
    Some(base.join(USER_FILE))
}

/// Whether `key`, by its name in the file, may be `value`.
///
/// # Errors
/// One line that names the key, the value and what is allowed.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    with(key, value).map(drop)
}

/// The defaults, with one key set.
///
/// # Errors
/// As [`check`].
pub fn with(key: &str, value: &str) -> Result<Config, String> {
    let mut config = Config::default();
    config.set(key, value).map_err(|r| r.to_string())?;
    Ok(config)
}

static CONFIG: OnceCell<Config> = OnceCell::new();

/// The profile that the environment names.
#[must_use]
pub fn profile() -> Option<String> {
    let name = std::env::var("SIDEWIRE_PROFILE").ok();
    name.filter(|name| !name.is_empty())
}

/// The settings; read when asked for the first time, which is at the first TCP socket.
pub fn get() -> &'static Config {
    CONFIG.get_or_init(|| {
        let _inside = signals::enter();
        let _whole = signals::cancel::Off::new();
        Config::load(profile().as_deref(), log::line)
    })
}

/// A file of the settings, with this process's id in the place of `%p`: a child made by fork(2) has files of its own.
pub(crate) fn of_process(path: &Path) -> PathBuf {
    let path = path.to_string_lossy();
    PathBuf::from(path.replace("%p", &std::process::id().to_string()))
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
        let read = config.read_text(text, Some("fast"), |r| refused.push(r));
        read.unwrap();
        (config, refused)
    }

    #[test]
    fn file_and_environment_set_the_same_keys() {
        let (config, refused) = from_file("strict = true\nlog = \"info\"\nstats = \"/tmp/s.%p\"\n");
        assert!(refused.is_empty());
        assert!(config.strict && config.enabled);
        assert_eq!(config.log, Level::Info);
        let file = config.stats.as_deref().map(of_process);
        let mine = format!("/tmp/s.{}", std::process::id());
        assert_eq!(file.as_deref(), Some(Path::new(&mine)));

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
        assert_eq!(
            (unknown.allowed, unknown.meant.as_deref()),
            (KEYS, Some("log"))
        );
        assert!(unknown.to_string().contains("did you mean log?"));
    }

    #[test]
    fn a_file_is_named_by_a_string() {
        let (config, refused) = from_file("explain = 5\nstats = true\npcap = \"5\"\n");
        assert_eq!((&config.explain, &config.stats), (&None, &None));
        assert_eq!(config.pcap.as_deref(), Some(Path::new("5")));
        let said: Vec<_> = refused.iter().map(|r| (&*r.key, &*r.value)).collect();
        assert_eq!(said, [("explain", "5"), ("stats", "true")]);
    }

    #[test]
    fn what_is_no_toml_counts_for_nothing() {
        let mut config = Config::default();
        let said = config.read_text("log = \"info\"\n\nstrict = \n", None, |r| panic!("{r}"));
        let said = said.unwrap_err();
        assert!(said.starts_with("line 3: "), "{said}");
        assert!(said.ends_with("; nothing of this file counts"), "{said}");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_read_is_told() {
        static SAID: crate::lock::Mutex<Vec<String>> = crate::lock::Mutex::new(Vec::new());
        let say = |line: core::fmt::Arguments<'_>| SAID.lock().push(line.to_string());
        let (directory, none) = (Path::new("/"), Path::new("/no/such/file"));
        let mut config = Config::default();
        assert!(!config.read_file(directory, None, false, say));
        assert!(!config.read_file(none, None, false, say));
        let said = SAID.lock();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].ends_with("; nothing of this file counts"),
            "{said:?}"
        );
    }

    #[test]
    fn rules_and_profiles_are_tables() {
        let rule = "rule = \"1\": allowed: [[rule]] tables in the file of the settings";
        assert_eq!(check("rule", "1").unwrap_err(), rule);
        let profile = check(PROFILE, "x").unwrap_err();
        assert!(profile.contains("[profile.NAME]"), "{profile}");
        for (text, allowed) in [
            ("[rule]\nport = 1\naccelerate = true\n", RULES),
            ("rule = [1]\n", RULES),
            ("[profile]\nlog = \"info\"\n", PROFILES),
        ] {
            let (config, refused) = from_file(text);
            assert_eq!(config, Config::default());
            let said = refused.iter().map(|r| (r.allowed, r.meant.as_deref()));
            assert_eq!(said.collect::<Vec<_>>(), [(allowed, None)], "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_named() {
        let vars = [
            ("SIDEWIRE_LOGG", "info"),
            ("SIDEWIRE_RULE", "1"),
            ("SIDEWIRE_TEST_NETNS", "1"),
            ("SIDEWIRE_CONFIG", "/x"),
            ("LOGG", "1"),
        ];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut said = Vec::new();
        Config::default().read_environment(vars.into_iter(), |r| said.push(r.to_string()));
        assert_eq!(said.len(), 2, "{said:?}");
        let logg =
            "SIDEWIRE_LOGG = \"info\": did you mean SIDEWIRE_LOG? allowed: SIDEWIRE_CONFIG, ";
        assert!(said[0].starts_with(logg), "{said:?}");
        assert!(
            said[1].starts_with("SIDEWIRE_RULE = \"1\": allowed: "),
            "{said:?}"
        );
    }

    #[test]
    fn the_program_has_the_name_it_was_started_by() {
        let config = Config::load(None, |_| {});
        let file = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let started_by = std::env::args_os().next().unwrap();
        let names = [std::env::current_exe().unwrap(), started_by.into()].map(file);
        assert_eq!(config.programs, names);
    }

    #[test]
    fn a_profile_counts_when_it_is_chosen() {
        let text =
            "log = \"warn\"\n[profile.fast]\nlog = \"info\"\n[profile.slow]\nstrict = true\n";
        let (config, refused) = from_file(text);
        assert!(refused.is_empty());
        assert_eq!((config.log, config.strict), (Level::Info, false));
        let has = |name| Config::default().read_text(text, Some(name), |_| {});
        assert_eq!((has("none"), has("slow")), (Ok(false), Ok(true)));
    }

    #[test]
    fn every_profile_is_checked() {
        let text = "[profile.fast]\nlog = 2\n[profile.slow]\nlog = 1\nlgo = \"info\"\nstrict = true\n\
                    [[profile.slow.rule]]\nport = 80\n[profile.slow.profile.fast]\nlog = \"info\"\n";
        let (config, refused) = from_file(text);
        assert_eq!(config, Config::default());
        let said: Vec<_> = refused.iter().map(Refused::to_string).collect();
        let begins = [
            "profile.fast.log = \"2\": allowed: off",
            "profile.slow.lgo = \"info\": did you mean log?",
            "profile.slow.log = \"1\": allowed: off",
            "profile.slow.profile = ",
            "profile.slow.rule = \"port = 80\": allowed: with",
        ];
        assert_eq!(said.len(), begins.len(), "{said:?}");
        for (line, begin) in said.iter().zip(begins) {
            assert!(line.starts_with(begin), "{said:?}");
        }
    }

    #[test]
    fn later_files_put_their_rules_first() {
        let mut config = Config::default();
        let mut read = |text: &str| {
            let read = config.read_text(text, None, |r| panic!("{r}"));
            read.unwrap();
        };
        read("[[rule]]\naccelerate = false\n");
        read(
            "[[rule]]\nport = 80\naccelerate = true\n[[rule]]\nport = \"80-81\"\naccelerate = false\n",
        );
        let asked =
            [80, 81, 82].map(|p| config.accelerates(Direction::Out, ([192, 0, 2, 1], p).into()));
        assert_eq!((config.rules.len(), asked), (3, [true, false, false]));
        let (_, refused) = from_file("[[rule]]\nport = 80\n");
        assert_eq!(refused.len(), 1);
    }
}
