//! Whether programs wait for memory, as the kernel counts it: <https://docs.kernel.org/accounting/psi.html>.
//!
//! A trigger tells when they waited for a quarter of two seconds: what a person notices, and more than a build or a large
//! copy causes in passing. Since Linux 6.5 everybody may set one, with windows of whole two seconds; where it cannot be
//! set, the mean of ten seconds is read.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::until_due;
use crate::{Sight, Teller};

const SUBJECT: &str = "memory";

/// 500 ms of waiting in 2 s, in microseconds.
const TRIGGER: &[u8] = b"some 500000 2000000\0";

/// What must have been counted since the last time for that to be believed, µs: a window is not the count's.
const WAITED: u64 = 250_000;

/// How long after the last sign memory counts as short: between two waits of a machine that swaps pass seconds.
const HOLD: Duration = Duration::from_secs(10);

/// Percent of time in which some program waited, mean of ten seconds: short from here on …
const SHORT: f64 = 25.0;
/// … until below this.
const ENOUGH: f64 = 10.0;

pub(super) async fn follow(proc: &Path, teller: &Teller) -> Infallible {
    let path = proc.join("pressure/memory");
    match set_trigger(&path) {
        Ok(trigger) => {
            let Err(error) = be_told(&trigger, &path, teller).await;
            tracing::warn!(%error, "the kernel tells no more of memory");
        }
        Err(error) => tracing::debug!(%error, "no trigger for memory pressure"),
    }
    read(path, teller).await
}

fn set_trigger(path: &Path) -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // Anything else would only keep the words.
    if fstatfs(&file)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file.write_all(TRIGGER)?;
    #[expect(unsafe_code, reason = "the only door to priority events")]
    // SAFETY: a `File` keeps one descriptor open for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
    Ok(registered?)
}

/// Ends when the trigger is lost.
async fn be_told(trigger: &AsyncFd<File>, path: &Path, teller: &Teller) -> io::Result<Infallible> {
    let mut counted = total(path);
    let tell = |short| {
        teller.state(|state| state.memory_short = Some(short));
        let now = if short { "programs wait for it" } else { "nobody waits for it" };
        let reading = Some(format!("the kernel tells when programs wait for it; now {now}"));
        teller.sight(Sight { subject: SUBJECT, reading, unseen: None });
    };
    tell(false);
    loop {
        waited(trigger, path, &mut counted).await?;
        tell(true);
        while let Ok(again) = tokio::time::timeout(HOLD, waited(trigger, path, &mut counted)).await {
            again?;
        }
        tell(false);
    }
}

/// A trigger fires in its first windows whatever happened (seen on Linux 6.18): the count says whether anybody waited.
async fn waited(trigger: &AsyncFd<File>, path: &Path, counted: &mut u64) -> io::Result<()> {
    loop {
        let mut ready = trigger.ready(Interest::PRIORITY).await?;
        ready.clear_ready();
        if ready.ready().is_error() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = std::mem::replace(counted, total(path));
        if counted.saturating_sub(before) >= WAITED {
            return Ok(());
        }
    }
}

/// Microseconds in which some program waited, since the start of the system; 0 where it is not told.
fn total(path: &Path) -> u64 {
    std::fs::read_to_string(path).ok().and_then(|text| some_total(&text)).unwrap_or(0)
}

async fn read(path: PathBuf, teller: &Teller) -> Infallible {
    let mut short = false;
    loop {
        let Some(waiting) = std::fs::read_to_string(&path).ok().and_then(|text| some_avg10(&text)) else {
            teller.state(|state| state.memory_short = None);
            let unseen = Some("whether programs wait for memory: this kernel does not count it");
            teller.sight(Sight { subject: SUBJECT, reading: None, unseen });
            return pending().await;
        };
        short = is_short(short, waiting);
        teller.state(|state| state.memory_short = Some(short));
        let reading = Some(format!(
            "the kernel's count, read while something is shared; programs waited for {waiting:.0} % of the last ten seconds"
        ));
        teller.sight(Sight { subject: SUBJECT, reading, unseen: None });
        until_due(teller).await;
    }
}

fn is_short(before: bool, waiting: f64) -> bool {
    waiting >= if before { ENOUGH } else { SHORT }
}

/// Out of the same line.
fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// Out of `some avg10=0.00 avg60=0.01 avg300=0.00 total=15889249`.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let figure = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    figure.parse().ok().filter(|it: &f64| it.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_a_quarter_until_below_a_tenth() {
        for (before, waiting, short) in
            [(false, 24.9, false), (false, 25.0, true), (true, 10.0, true), (true, 9.9, false)]
        {
            assert_eq!(is_short(before, waiting), short, "{waiting}");
        }
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it_and_nothing_else_is() {
        let text = "some avg10=12.50 avg60=0.01 avg300=0.00 total=15889249\nfull avg10=90.00 avg60=0.01 avg300=0.00 total=7\n";
        assert_eq!((some_avg10(text), some_total(text)), (Some(12.5), Some(15_889_249)));
        assert_eq!(some_avg10("full avg10=90.00"), None);
        assert_eq!(some_avg10("some avg10=NaN"), None);
        assert_eq!(some_avg10(""), None);
    }
}
