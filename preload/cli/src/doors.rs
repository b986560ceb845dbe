//! Where running processes can be asked: the sockets in the directories of their users, as we see them and as processes
//! in other mount namespaces see them (a private /tmp, a /run of their own).
//!
//! Another process's view is looked at through `/proc/PID/root`, which it does not notice. What is found there is as
//! little to be trusted as what is found in /tmp: a path never leads out of that view, and a directory counts when it is
//! its user's alone.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use sidewire_posix::inspection::{directories, parse_socket_name};

/// A process's socket.
#[derive(Debug)]
pub(crate) struct Door {
    /// The number that the process has in its pid namespace.
    pub(crate) number: i32,
    /// The inode of that namespace.
    pub(crate) namespace: u64,
    /// The socket.
    pub(crate) path: PathBuf,
    /// Whether it is ours to remove when nobody listens.
    pub(crate) ours: bool,
    /// What `path` leads through.
    _directory: Arc<OwnedFd>,
}

/// Device and inode.
type Identity = (u64, u64);

/// What is in a root directory of some process, by paths below it.
struct View {
    root: OwnedFd,
    /// Our own: paths need no detour.
    own: bool,
}

impl View {
    /// `None` where we may not look.
    fn of(process: &str) -> Option<View> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = process == "self";
        let path = if own {
            "/".to_owned()
        } else {
            format!("/proc/{process}/root")
        };
        let root = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty()).ok()?;
        Some(View { root, own })
    }

    fn open(&self, path: &Path, flags: OFlags) -> Option<OwnedFd> {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve).ok()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let Some(directory) = self.open(Path::new(path), OFlags::RDONLY) else {
            return Vec::new();
        };
        names(&through(&directory))
    }

    /// The directories that may hold doors.
    fn places(&self, uid: u32) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = directories(uid).into();
        let users = self.names("/run/user").into_iter();
        places.extend(users.map(|user| Path::new("/run/user").join(user).join("sidewire")));
        let all = self.names("/tmp").into_iter();
        let ours = all.filter(|name| name.starts_with("sidewire-"));
        places.extend(ours.map(|name| Path::new("/tmp").join(name)));
        places
    }
}

/// The path of an open directory.
fn through(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// Our own view, and one of each other that some process of ours has; of every user for root.
fn views() -> Vec<View> {
    let mut views: Vec<View> = View::of("self").into_iter().collect();
    let mut seen = HashSet::new();
    let is_pid = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
    let others = names(Path::new("/proc")).into_iter().filter(is_pid);
    for process in ["self".to_owned()].into_iter().chain(others) {
        // Links that are not ours to read are of processes that are not ours to ask.
        let of = |what: &str| fs::metadata(format!("/proc/{process}/{what}")).ok();
        if let (Some(namespace), Some(root)) = (of("ns/mnt"), of("root"))
            && seen.insert((namespace.ino(), root.dev(), root.ino()))
            && process != "self"
        {
            views.extend(View::of(&process));
        }
    }
    views
}

/// The sockets of the processes that we may ask: those of our user, of every user for root.
pub(crate) fn doors() -> Vec<Door> {
    let uid = rustix::process::geteuid();
    let mut seen: HashSet<Identity> = HashSet::new();
    let mut doors = Vec::new();
    for view in views() {
        for place in view.places(uid.as_raw()) {
            let Some(directory) = view.open(&place, OFlags::PATH) else {
                continue;
            };
            let Ok(stat) = fstat(&directory) else {
                continue;
            };
            let ours = stat.st_uid == uid.as_raw();
            if !(ours || uid.is_root()) || !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            let directory = Arc::new(directory);
            // Without /proc there is our own view, by its own paths.
            let path = if view.own { place } else { through(&directory) };
            doors.extend(names(&path).into_iter().filter_map(|name| {
                let (number, namespace) = parse_socket_name(&name)?;
                Some(Door {
                    number,
                    namespace,
                    path: path.join(name),
                    ours,
                    _directory: Arc::clone(&directory),
                })
            }));
        }
    }
    doors.sort_by_key(|door| (door.number, door.namespace));
    doors
}
