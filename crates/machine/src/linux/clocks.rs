//! Being told when the wall clock is set or the machine woke: a timer that never fires and that the kernel cancels then
//! (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`). It costs no wake-up.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::{Sight, Teller};

/// `CLOCK_BOOTTIME` goes on in sleep, `CLOCK_MONOTONIC` does not.
pub(crate) fn slept() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

pub(super) async fn follow(teller: &Teller) -> Infallible {
    let subject = "clocks";
    let timer = match Timer::new() {
        Ok(timer) => timer,
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell when the clock is set");
            teller.sight(Sight {
                subject,
                reading: None,
                unseen: Some("that the clock was set, until something else happens"),
            });
            return pending().await;
        }
    };
    let reading = Some("the kernel tells when they are set and when the machine woke".to_owned());
    teller.sight(Sight { subject, reading, unseen: None });
    loop {
        if let Err(error) = timer.cancelled().await {
            tracing::warn!(%error, "the kernel tells no more when the clock is set");
            return pending().await;
        }
        teller.jumped();
    }
}

/// A timerfd reads like a pipe.
struct Timer(Receiver);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timer = Self(Receiver::from_owned_fd_unchecked(timer)?);
        timer.arm()?;
        Ok(timer)
    }

    fn arm(&self) -> io::Result<()> {
        let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.0, flags, &once) {
            // Set once more in between; it is armed all the same.
            Err(Errno::CANCELED) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn cancelled(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                    return self.arm();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(_) => self.arm()?,
            }
        }
    }
}
