//! Sticks and triggers: which of their movements are a hand's. One at rest trembles, and a worn one drifts.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

use super::event::Event;

/// The axes of a hand, `ABS_X` to `ABS_HAT3Y`; those above are of tablets and touch screens.
const AXES: u16 = 0x18;

/// The part of its range that an axis must move to count: an eighth, as much as games commonly leave dead around a stick's
/// middle (Microsoft gives 7,849 to 8,689 of 32,767 for the Xbox 360's, a quarter of half the range).
const DEAD: i64 = 8;

/// Where each axis last counted.
#[derive(Debug, Default)]
pub(super) struct Sticks(Vec<Option<Axis>>);

#[derive(Clone, Copy, Debug)]
struct Axis {
    at: i32,
    /// Movements up to this are no hand's.
    dead: i64,
}

impl Sticks {
    /// As the device describes them. One that does not say how far an axis reaches does not tell trembling from play either: of
    /// such an axis nothing counts.
    pub(super) fn of(device: &impl AsFd) -> Self {
        Self((0..AXES).map(|code| about(device.as_fd(), code).and_then(Axis::new)).collect())
    }

    /// Whether this event moved a stick as a hand does.
    pub(super) fn moved(&mut self, event: Event) -> bool {
        let axis = self.0.get_mut(usize::from(event.code)).and_then(Option::as_mut);
        match axis.filter(|_| event.is_of_an_axis()) {
            Some(axis) if (i64::from(event.value) - i64::from(axis.at)).abs() > axis.dead => {
                axis.at = event.value;
                true
            }
            _ => false,
        }
    }
}

impl Axis {
    fn new(about: About) -> Option<Self> {
        let range = i64::from(about.maximum) - i64::from(about.minimum);
        (range > 0).then(|| Self { at: about.value, dead: (range / DEAD).max(i64::from(about.flat)) })
    }
}

/// `struct input_absinfo` of `include/uapi/linux/input.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct About {
    value: i32,
    minimum: i32,
    maximum: i32,
    fuzz: i32,
    flat: i32,
    resolution: i32,
}

/// `EVIOCGABS`: what the device says of one axis.
struct Ask {
    opcode: Opcode,
    answer: About,
}

#[expect(unsafe_code, reason = "no safe interface asks an input device for its axes")]
// SAFETY: the request of this number writes one `input_absinfo` to the pointer it is given, and that is what
// `as_ptr` points to.
unsafe impl Ioctl for Ask {
    type Output = About;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        (&raw mut self.answer).cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        answer: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: the pointer of `as_ptr`, after the kernel has filled it in.
        Ok(unsafe { answer.cast::<About>().read() })
    }
}

fn about(device: BorrowedFd<'_>, code: u16) -> Option<About> {
    let number = 0x40 + u8::try_from(code).ok()?;
    let ask = Ask { opcode: opcode::read::<About>(b'E', number), answer: About::default() };
    #[expect(unsafe_code, reason = "no safe interface asks an input device for its axes")]
    // SAFETY: see `Ask`; another device refuses the number.
    unsafe { rustix::ioctl::ioctl(device, ask) }.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: u16 = 0;
    const HAT: u16 = 0x10;

    fn sticks() -> Sticks {
        let mut axes = vec![None; usize::from(AXES)];
        let stick = About { value: 900, minimum: -32768, maximum: 32767, flat: 128, ..About::default() };
        axes[usize::from(X)] = Axis::new(stick);
        axes[usize::from(HAT)] = Axis::new(About { minimum: -1, maximum: 1, ..About::default() });
        Sticks(axes)
    }

    #[test]
    fn a_stick_at_rest_that_trembles_is_no_hand() {
        let mut sticks = sticks();
        for value in [-2_000, 3_500, 0, 900, 6_000, -5_000] {
            assert!(!sticks.moved(Event::axis(X, value)), "{value}");
        }
        assert!(sticks.moved(Event::axis(X, 12_000)));
        assert!(!sticks.moved(Event::axis(X, 12_500)), "held there is not moved");
        assert!(sticks.moved(Event::axis(X, 0)), "let go is");
    }

    #[test]
    fn a_direction_pad_counts_at_once_and_unknown_axes_never() {
        let mut sticks = sticks();
        assert!(sticks.moved(Event::axis(HAT, -1)) && sticks.moved(Event::axis(HAT, 0)));
        assert!(!sticks.moved(Event::axis(1, 30_000)) && !sticks.moved(Event::axis(0x2f, 30_000)));
    }

    #[test]
    fn what_is_no_input_device_has_no_axes() {
        let (pipe, _other) = std::io::pipe().unwrap();
        assert!(Sticks::of(&pipe).0.iter().all(Option::is_none));
    }
}
