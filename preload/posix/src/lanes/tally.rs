//! What a lane reckons to have left the device, so that the kernel needs not be asked for each frame.

/// The newest frames of a lane of which it is known where they end.
const MARKS: usize = 64;

/// Where a frame ends.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// In bytes as the engine charges them (Linux `truesize` of a segment).
    put: u64,
    /// As the kernel charges the packet socket.
    charged: u64,
    /// When it was put in, nanoseconds of the monotonic clock.
    at: u64,
}

/// Bytes of a lane, counted from its beginning.
pub(super) struct Tally {
    /// The end of the newest frame.
    last: Mark,
    /// Its number.
    number: u64,
    /// The end of the newest frame that is known to have left the device. Frames leave it in their order, or nearly.
    left: Mark,
    /// By the frame's number. Not in place: a stack may be opened on a small stack of the program's.
    marks: Box<[Mark]>,
    /// When nothing worth waiting for was found, nanoseconds of the monotonic clock.
    pub(super) clear_at: u64,
    /// Whose the last frame was, by its ports.
    ports: (u16, u16),
    /// Since nothing waited, frames of several connections were put in.
    mixed: bool,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            last: Mark::default(),
            number: 0,
            left: Mark::default(),
            marks: Box::from([Mark::default(); MARKS]),
            clear_at: 0,
            ports: (0, 0),
            mixed: false,
        }
    }

    fn mark(&self, number: u64) -> Mark {
        self.marks[(number % MARKS as u64) as usize]
    }

    /// A frame of that number was put in, of the connection with these ports.
    pub(super) fn add(
        &mut self,
        number: u64,
        truesize: u32,
        charge: u32,
        now: u64,
        ports: (u16, u16),
    ) {
        self.mixed |= self.ports != ports && self.most() > 0;
        self.ports = ports;
        self.last = Mark {
            put: self.last.put + u64::from(truesize),
            charged: self.last.charged + u64::from(charge),
            at: now,
        };
        self.marks[(number % MARKS as u64) as usize] = self.last;
        self.number = number;
    }

    /// No more than that can be waiting, in bytes of the engine's.
    pub(super) fn most(&self) -> u64 {
        self.last.put - self.left.put
    }

    /// So much waits, in bytes of the kernel's, which are reckoned: the end of a frame that is nearest is meant.
    pub(super) fn found(&mut self, waiting: u64) {
        self.mixed &= waiting > 0;
        let left = self.last.charged.saturating_sub(waiting);
        let oldest = (self.number + 1).saturating_sub(MARKS as u64);
        for number in (oldest..=self.number).rev() {
            let mark = self.mark(number);
            let before = match number.checked_sub(1) {
                Some(before) if before >= oldest => self.mark(before).charged,
                _ => break,
            };
            if mark.charged <= self.left.charged {
                return;
            }
            if 2 * left >= before + mark.charged {
                self.left = mark;
                return;
            }
        }
    }

    /// What waits may be of several connections, and for several devices.
    pub(super) fn mixed(&self) -> bool {
        self.mixed
    }

    /// How much has to leave until the frame of that number has; 0 when it has, is too old to be known, or was put in before
    /// `since`.
    pub(super) fn until(&self, number: u64, since: u64) -> u64 {
        let mark = self.mark(number);
        if number + MARKS as u64 <= self.number || mark.at < since {
            return 0;
        }
        mark.put.saturating_sub(self.left.put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three frames of 100, 1000 and 100 bytes, which the kernel charges with somewhat more.
    fn three() -> Tally {
        let mut tally = Tally::new();
        for (number, truesize) in [(1, 100), (2, 1000), (3, 100)] {
            tally.add(number, truesize, truesize + 7, number, (1, 2));
        }
        tally
    }

    #[test]
    fn what_waits_ends_with_a_frame() {
        for (waiting, most) in [
            (0, 0),
            (50, 0),
            (60, 100),
            (107, 100),
            (600, 100),
            (615, 1100),
            (1114, 1100),
            (1221, 1200),
        ] {
            let mut tally = three();
            tally.found(waiting);
            assert_eq!(tally.most(), most, "{waiting} bytes");
        }
    }

    #[test]
    fn what_has_left_does_not_come_back() {
        let mut tally = three();
        tally.found(107);
        tally.found(1114);
        assert_eq!(tally.most(), 100);
        assert_eq!([1, 2, 3].map(|n| tally.until(n, 0)), [0, 0, 100]);
        assert_eq!(tally.until(3, 4), 0);
    }

    #[test]
    fn old_frames_are_forgotten() {
        let mut tally = three();
        for number in 4..=3 + MARKS as u64 {
            tally.add(number, 10, 10, number, (1, 2));
        }
        assert_eq!(tally.until(3, 0), 0);
        assert_eq!(tally.until(4, 0), 1210);
        tally.found(0);
        assert_eq!(tally.most(), 0);
    }
}
