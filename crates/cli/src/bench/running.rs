//! The run itself: rest, warm-up, repeats, one cap after the other, and everything back as it was.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use idlewatt_devices::Sensors;
use idlewatt_engine::config::Config;
use idlewatt_engine::home::Home;
use idlewatt_protocol::bench::{BenchPoint, BenchReport};
use idlewatt_protocol::{Label, Milliwatts, UnixMillis};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::asking::ask;
use super::figures::{Phase, Repeat, Used, point};
use super::quiet::Quiet;
use super::sweep::Sweep;
use super::target::{Place, Target, failed};
use super::workload::{self, Prompts};
use crate::args::Bench;
use crate::exit::{Exit, Failure};
use crate::sampling::{Sampling, Stretch};

/// Between readings: what a card's own sensor refreshes in.
const PACE: Duration = Duration::from_millis(50);

/// Longest method and server texts in a report, bytes.
const TEXT: usize = 250;

/// Measures a model by the workload.
///
/// # Errors
/// What went wrong, or that it was interrupted; sharing and limits are then as before.
pub(super) async fn run(home: &Home, config: &Config, arguments: &Bench) -> Result<BenchReport, Failure> {
    let mut interruption = Interruption::listen()?;
    let quiet = Quiet::begin(home).await?;
    let mut sweep = None;
    let measured = tokio::select! {
        report = measure(home, config, arguments, &mut sweep) => report,
        failure = quiet.hold() => Err(failure),
        failure = interruption.received() => Err(failure),
    };
    let restored = sweep.map_or(Ok(()), Sweep::end);
    let resumed = quiet.end().await;
    // What went wrong first is what a person wants to know first.
    let report = measured?;
    restored.and(resumed).map(|()| report)
}

async fn measure(
    home: &Home,
    config: &Config,
    arguments: &Bench,
    sweep: &mut Option<Sweep>,
) -> Result<BenchReport, Failure> {
    let settings = config.settings();
    let own_port = home.resident().map(|it| it.address.port());
    let mut target = Target::find(settings, own_port, arguments.model.as_deref()).await?;
    let bar = progress();
    bar.set_message(format!("loading {}", target.model.artefact.name()));
    let seed = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
    let mut prompts = Prompts::new(seed);
    // The first answer loads the model, so that it can be seen where it computes.
    ask(&*target.server, &target.model, &prompts.prefill(), 1).await.map_err(|it| failed(&it))?;
    let sampling = Sampling::start(&settings.places(), &[], PACE, |_| ());
    target.place = Place::of(target.port(), &sampling, &mut Sensors::new(&settings.places()));
    if let Some(doubt) = &target.place.doubt {
        bar.println(format!("Energy is not well known: {doubt}."));
    }
    let started = UnixMillis(jiff::Timestamp::now().as_millisecond());
    let limits = match &arguments.cap_sweep {
        None => vec![None],
        Some(wanted) => {
            let planned = Sweep::plan(home, settings, &target.place.cards, &wanted.0).await?;
            sweep.insert(planned).limits.iter().copied().map(Some).collect()
        }
    };
    bar.set_length(limits.len() as u64 * (1 + 2 * u64::from(arguments.repeats)));
    let mut bench = Run { target, sampling, prompts, bar };
    let mut points = Vec::with_capacity(limits.len());
    for limit in limits {
        if let (Some(limit), Some(sweep)) = (limit, sweep.as_mut()) {
            sweep.set(limit)?;
        }
        points.push(bench.point(limit, arguments.repeats).await?);
    }
    bench.bar.finish_and_clear();
    points.sort_by_key(|it| it.cap_mw);
    Ok(bench.report(started, points))
}

struct Run {
    target: Target,
    sampling: Sampling,
    prompts: Prompts,
    bar: ProgressBar,
}

impl Run {
    async fn point(&mut self, limit: Option<Milliwatts>, repeats: u32) -> Result<BenchPoint, Failure> {
        let at = limit.map_or_else(String::new, |limit| format!("{:.0} W: ", limit.to_main_unit()));
        self.bar.set_message(format!("{at}warming up"));
        let begun = Instant::now();
        while begun.elapsed() < workload::WARM_UP {
            self.ask(false).await?;
        }
        self.bar.inc(1);
        let (mut measured, mut cap) = (Vec::new(), None);
        for _ in 0..repeats {
            let mut repeat = Repeat::default();
            for prefill in [true, false] {
                let (phase, limit) = self.phase(prefill).await?;
                self.bar.set_message(format!("{at}{}", now(prefill, &phase)));
                self.bar.inc(1);
                *(if prefill { &mut repeat.prefill } else { &mut repeat.decode }) = phase;
                cap = limit;
            }
            measured.push(repeat);
        }
        Ok(point(cap, &measured))
    }

    /// One phase, and the limit that was in force at its end.
    async fn phase(&mut self, prefill: bool) -> Result<(Phase, Option<Milliwatts>), Failure> {
        let mut phase = Phase::default();
        self.sampling.begin();
        let begun = Instant::now();
        while begun.elapsed() < workload::PHASE {
            let asked = self.ask(prefill).await?;
            phase.prompt += u64::from(asked.prompt);
            phase.generated += u64::from(asked.answer.saturating_sub(1));
            phase.reading_s += asked.first.as_secs_f64();
            phase.generating_s += asked.rest.as_secs_f64();
        }
        phase.seconds = begun.elapsed().as_secs_f64();
        let here = &self.target.place.sensors;
        let stretches: Vec<Stretch> =
            self.sampling.end().into_iter().filter(|it| here.contains(&it.sensor.id)).collect();
        let all = |known: fn(&Stretch) -> Option<Milliwatts>| {
            Some(stretches.iter().map(known).collect::<Option<Vec<_>>>()?.into_iter().sum())
                .filter(|_| !here.is_empty())
        };
        phase.energy = used(&stretches).filter(|_| stretches.len() == here.len() && !here.is_empty());
        phase.peak = all(|it| it.peak);
        phase.hottest_c = stretches.iter().filter_map(|it| it.hottest_c).max();
        phase.label = match phase.energy {
            None => Label::Unknown,
            Some(_) if self.target.place.doubt.is_some() => Label::Estimated,
            Some(_) => stretches.iter().map(|it| it.energy.label).max().unwrap_or_default(),
        };
        Ok((phase, all(|it| it.limit)))
    }

    async fn ask(&mut self, prefill: bool) -> Result<super::asking::Asked, Failure> {
        let (body, most) = match prefill {
            true => (self.prompts.prefill(), 1),
            false => (self.prompts.decode(), workload::ANSWER_TOKENS),
        };
        ask(&*self.target.server, &self.target.model, &body, most).await.map_err(|error| failed(&error))
    }

    fn report(&self, started: UnixMillis, points: Vec<BenchPoint>) -> BenchReport {
        let artefact = &self.target.model.artefact;
        let place = &self.target.place;
        let sensors = self.sampling.sensors().iter().filter(|it| place.sensors.contains(&it.id));
        let methods = sensors.map(|it| match &it.leaves_out {
            Some(left_out) => format!("{}; leaves out {left_out}", it.method),
            None => it.method.clone(),
        });
        let mut methods: Vec<String> = methods.collect();
        methods.dedup();
        let server = [Some(artefact.engine.as_str()), artefact.engine_build.as_deref()];
        BenchReport {
            workload: workload::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            gpus: place.gpus.clone(),
            processor: place.processor.clone(),
            server: bounded(&server.into_iter().flatten().collect::<Vec<_>>().join(" ")),
            artefact: artefact.clone(),
            method: bounded(&methods.join(" + ")),
            points,
        }
    }
}

/// The sum; each sensor's error counted as if all erred the same way.
fn used(stretches: &[Stretch]) -> Option<Used> {
    let uj = |mj: i64| mj as f64 * 1000.0;
    stretches.iter().try_fold(Used { uj: 0.0, error_uj: 0.0 }, |sum, it| {
        let error = it.energy.error_mj.map_or(0.0, |it| uj(it.0));
        Some(Used { uj: sum.uj + uj(it.energy.total_mj?.0), error_uj: sum.error_uj + error })
    })
}

/// What a phase showed, for the progress line.
fn now(prefill: bool, phase: &Phase) -> String {
    let (what, tokens, seconds) = match prefill {
        true => ("prompts", phase.prompt, phase.reading_s),
        false => ("answers", phase.generated, phase.generating_s),
    };
    let speed = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    let power = phase.energy.filter(|_| phase.seconds > 0.0).map(|it| it.uj / 1e6 / phase.seconds);
    let power = power.map(|watts| format!(", {watts:.0} W")).unwrap_or_default();
    format!("{what} {speed:.1} tokens/s{power}")
}

fn bounded(text: &str) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(TEXT));
    text
}

/// A bar on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(1), target).with_style(style)
}

/// Ctrl-C, and what ends programs from outside.
struct Interruption {
    #[cfg(unix)]
    signals: [(tokio::signal::unix::Signal, Exit); 3],
}

impl Interruption {
    #[cfg(unix)]
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("Signals cannot be received: {error}."),
                    "Ctrl-C could not put things back as they were. Nothing was measured.",
                    "This is a defect; report it.",
                )
            })
        };
        let signals = [
            (listen(SignalKind::interrupt())?, Exit::Interrupted),
            (listen(SignalKind::terminate())?, Exit::Terminated),
            (listen(SignalKind::hangup())?, Exit::HungUp),
        ];
        Ok(Self { signals })
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every platform")]
    fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    async fn received(&mut self) -> Failure {
        #[cfg(unix)]
        let exit = {
            let [interrupt, terminate, hang_up] = &mut self.signals;
            tokio::select! {
                _ = interrupt.0.recv() => interrupt.1,
                _ = terminate.0.recv() => terminate.1,
                _ = hang_up.0.recv() => hang_up.1,
            }
        };
        #[cfg(not(unix))]
        let exit = {
            drop(tokio::signal::ctrl_c().await);
            Exit::Interrupted
        };
        Failure::new(
            exit,
            "Interrupted.",
            "Nothing of it is kept; power limits and sharing are as they were before.",
            "Run it again when there is time: a repeat takes about ten seconds a limit.",
        )
    }
}
