//! What a lane reckons to have left the device, so that the kernel needs not be asked for each frame.

/// The newest frames of a lane of which it is known how much was put in before them.
const MARKS: usize = 64;

/// Where the newest frames end.
#[derive(Clone, Copy, Default)]
struct Mark {
    put: u64,
    /// When it was put in, nanoseconds of the monotonic clock.
    at: u64,
}

/// Bytes of a lane, as the kernel charges them, counted from its beginning.
pub(super) struct Tally {
    /// Put in.
    put: u64,
    /// Known to have left the device. Frames leave it in their order, or nearly.
    left: u64,
    /// By the frame's number. Not in place: a stack may be opened on a small stack of the program's.
    marks: Box<[Mark]>,
    last: u64,
    /// Whose the last one was, by its ports.
    ports: (u16, u16),
    /// Since nothing waited, frames of several connections were put in.
    mixed: bool,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            put: 0,
            left: 0,
            marks: Box::from([Mark::default(); MARKS]),
            last: 0,
            ports: (0, 0),
            mixed: false,
        }
    }

    /// A frame of that number was put in, of the connection with these ports.
    pub(super) fn add(&mut self, number: u64, charge: u32, now: u64, ports: (u16, u16)) {
        self.mixed |= self.ports != ports && self.most() > 0;
        self.ports = ports;
        self.put += u64::from(charge);
        self.marks[(number % MARKS as u64) as usize] = Mark {
            put: self.put,
            at: now,
        };
        self.last = number;
    }

    /// No more than that can be waiting.
    pub(super) fn most(&self) -> u64 {
        self.put - self.left
    }

    /// So much waits.
    pub(super) fn found(&mut self, waiting: u64) {
        self.left = self.left.max(self.put.saturating_sub(waiting));
        self.mixed &= waiting > 0;
    }

    /// What waits may be of several connections, and for several devices.
    pub(super) fn mixed(&self) -> bool {
        self.mixed
    }

    /// How much has to leave until the frame of that number has; 0 when it has, is too old to be known, or was put in before
    /// `since`.
    pub(super) fn until(&self, number: u64, since: u64) -> u64 {
        let mark = self.marks[(number % MARKS as u64) as usize];
        if number + MARKS as u64 <= self.last || mark.at < since {
            return 0;
        }
        mark.put.saturating_sub(self.left)
    }
}
