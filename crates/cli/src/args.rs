//! The command line, as documented in docs/commands.md.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use idlewatt_control::PauseFor;
use idlewatt_protocol::{Milliwatts, Price, RequestId, Scope, UnixMillis};
use jiff::civil::Time;
use jiff::{SignedDuration, ToSpan, Zoned};

/// Lend your idle GPU: inside your watts, inside your hours, and back in your hands the moment you touch it.
#[derive(Debug, Parser)]
#[command(name = "idlewatt", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine: find cards and models, share what you allow, serve the control panel.
    Run {
        /// Loopback address of the control panel; port 0 takes any free one [default: control.listen].
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        /// Show a tray icon.
        #[arg(long)]
        tray: bool,
    },
    /// What was found on this machine, what is missing, and what to do about it.
    Doctor(Json),
    /// What is happening now, and why.
    Status(Json),
    /// What the cards draw, what holds them, and where the energy went.
    Power(Json),
    /// Join a hub by its invite.
    Join {
        /// `idlewatt://join?…`
        invite: String,
        #[command(flatten)]
        json: Json,
    },
    /// Leave a hub.
    Leave {
        /// Its name, id or address.
        hub: String,
        #[command(flatten)]
        json: Json,
    },
    /// Stop sharing, now: until told otherwise, for a time, or until a time.
    Pause {
        /// For how long: `1h`, `90m`.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "until")]
        duration: Option<u32>,
        /// Until when, local time: `18:00`, or `tomorrow` for six in the morning.
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Option<PauseFor>,
        #[command(flatten)]
        json: Json,
    },
    /// Share again, as far as your rules allow.
    Resume {
        /// Also while you are here and outside your hours, for an hour; never over a limit, during a game or on battery.
        #[arg(long)]
        now: bool,
        /// For how long: `1h`, `90m`.
        #[arg(long = "for", value_name = "DURATION", value_parser = duration, requires = "now")]
        duration: Option<u32>,
        #[command(flatten)]
        json: Json,
    },
    /// When this machine shares: your rules, and what comes next.
    Schedule(Json),
    /// Share a model or stop sharing it; without one, list all.
    Share {
        /// The model's name, or an unambiguous part of it.
        service: Option<String>,
        /// `on` tries the model live before it is offered.
        #[arg(value_name = "on|off")]
        switch: Option<Switch>,
        /// Credits a million tokens, such as 1.5; set with `on` or `off`.
        #[arg(long, value_name = "CREDITS", value_parser = price, requires = "switch")]
        price: Option<Price>,
        /// Whether the model may be unloaded to free memory although sharing did not load it.
        #[arg(long, value_name = "on|off", requires = "service", conflicts_with_all = ["switch", "price"])]
        may_unload: Option<Switch>,
        /// Whom it answers: your own account, your circles, or strangers too.
        #[arg(long, value_name = "own|circle|public", requires = "service", conflicts_with = "may_unload")]
        with: Option<Scope>,
        #[command(flatten)]
        json: Json,
    },
    /// Give everything back now, memory too, and share nothing until you resume.
    Back(Json),
    /// How the GPU was given back, newest first.
    Yields {
        /// How many, 1 to 1000.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        json: Json,
    },
    /// What became of your share windows, day by day, and why little was shared.
    Hours {
        /// How many days, 1 to 366.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
        #[command(flatten)]
        json: Json,
    },
    /// Model files on this machine, and which of them a llama-server of our own runs.
    Models {
        #[command(subcommand)]
        action: Option<Models>,
        #[command(flatten)]
        json: Json,
    },
    /// Requests served, newest first.
    Requests {
        /// How many, 1 to 1000.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        json: Json,
    },
    /// Run any command and report what it took in joules, by every power sensor of this machine.
    Measure(Measure),
    /// Measure what a token of a local model costs in joules, at one power limit or over several.
    Bench(Bench),
    /// Receipts: who said what about one request.
    #[command(subcommand)]
    Receipt(Receipt),
    /// The API keys of model servers that want one.
    Key {
        #[command(subcommand)]
        action: Key,
        #[command(flatten)]
        json: Json,
    },
    /// Settings.
    #[command(subcommand)]
    Config(Config),
    /// A hub of your own beside the engine: one OpenAI endpoint for all your devices.
    Hub {
        #[command(subcommand)]
        action: Option<Hub>,
        #[command(flatten)]
        json: Json,
    },
    /// A fresh link to the control panel.
    Panel(Json),
    /// Your own OpenAI endpoint on this machine, and its key.
    Endpoint(Json),
    /// End the engine; running requests are handed back first.
    Stop(Json),
}

/// What to do with model files.
#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// Run one whenever sharing may go on, or none any more.
    Run {
        /// Its id or name, or an unambiguous part of it; `off` runs none.
        #[arg(value_name = "ID|off")]
        id: String,
    },
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// Seconds between readings, 0.01 to 10.
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Write every reading as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The command and its arguments, after `--`. It keeps its terminal, its signals and its exit code; with --json what
    /// it prints goes to stderr.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What to bench.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The model's name, or an unambiguous part of it.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// How often the workload is run at each power limit, 1 to 20.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) repeats: u32,
    /// Repeat at several power limits, in watts a card: `150,200,250`; without a list, at 50 to 100 % of what the card
    /// was made for. The card's own limit is given back at the end.
    #[arg(long, value_name = "WATTS", num_args = 0..=1, default_missing_value = "", value_parser = limits)]
    pub(crate) cap_sweep: Option<Limits>,
    /// Send the report, signed with this node's key, to every hub joined.
    #[arg(long)]
    pub(crate) publish: bool,
    /// Write the report to a file as well; its ending says how: .csv or .json.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Measure nothing: check a signed report as a hub gives it out, offline.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "repeats", "cap_sweep", "publish", "out"])]
    pub(crate) verify: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// Power limits; none are the usual ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits(pub(crate) Vec<Milliwatts>);

/// Machine-readable output.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Json {
    /// Print JSON on stdout, and nothing else.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// What to do with a receipt.
#[derive(Debug, Subcommand)]
pub(crate) enum Receipt {
    /// Show the receipt of a request.
    Show {
        /// `req_…`
        id: RequestId,
        #[command(flatten)]
        json: Json,
    },
    /// Check a receipt file, offline: every signature, and that all figures agree.
    Verify {
        /// The file, or `-` for stdin.
        file: PathBuf,
        #[command(flatten)]
        json: Json,
    },
    /// Save the receipt of a request as a file.
    Export {
        /// `req_…`
        id: RequestId,
        /// The file; stdout where left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show one setting, or all.
    Get {
        /// Dotted key, such as `share.idle_after`.
        key: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Change one setting; it takes effect at once.
    Set {
        /// Dotted key.
        key: String,
        /// Its value; empty takes the default.
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        json: Json,
    },
    /// Where the settings file is.
    Path(Json),
}

/// What to do with the API key of a model server.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Set it, read from stdin: a line typed or pasted, or a file. It is tried at once.
    Set {
        /// The server's address, or a part of its name, such as `lm-studio`.
        server: String,
    },
    /// Forget it.
    Remove {
        /// The server's address, or a part of its name.
        server: String,
    },
}

/// What to do with the hub of your own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Hub {
    /// Start it, join it, and keep it running whenever the engine runs.
    Start,
    /// Stop it and leave it. Its books stay on disk.
    Stop,
    /// Its address and key.
    Show,
    /// An invite to it for another device, once and for a day: paste it there, or scan it with a phone. `hub.lan` opens the
    /// hub to the networks that this machine is in.
    Invite,
}

#[expect(clippy::cast_possible_truncation, reason = "at most 100,000 W")]
fn limits(text: &str) -> Result<Limits, String> {
    let watts = |text: &str| {
        let watts = text.trim().trim_end_matches(['W', 'w']).trim_end().parse::<f64>().ok();
        let watts = watts.filter(|watts| (1.0..=100_000.0).contains(watts));
        watts
            .map(|watts| Milliwatts((watts * 1000.0).round() as i64))
            .ok_or_else(|| format!("{text:?} is no power in watts"))
    };
    let limits: Vec<Milliwatts> = match text {
        "" => Vec::new(),
        list => list.split(',').map(watts).collect::<Result<_, _>>()?,
    };
    if limits.len() > 32 { Err("at most 32 limits".to_owned()) } else { Ok(Limits(limits)) }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=10.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds, 0.01 to 10".to_owned())
}

/// How long "share now" lasts unless told, seconds.
pub(crate) const SHARE_NOW: u32 = 3_600;

fn duration(text: &str) -> Result<u32, String> {
    let seconds = text.parse::<SignedDuration>().map_err(|error| error.to_string())?.as_secs();
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=31 * 24 * 3600).contains(seconds))
        .ok_or_else(|| "it can be 1 second to 31 days".to_owned())
}

fn until(text: &str) -> Result<PauseFor, String> {
    if text == "tomorrow" {
        return Ok(PauseFor::Tomorrow);
    }
    let time: Time = text.parse().map_err(|_| "not a time of day such as 18:00".to_owned())?;
    next(time, &Zoned::now())
        .map(|at| PauseFor::At { at: UnixMillis(at.timestamp().as_millisecond()) })
        .map_err(|error| error.to_string())
}

/// The next time that the clock shows `time`.
fn next(time: Time, now: &Zoned) -> Result<Zoned, jiff::Error> {
    let today = now.with().time(time).build()?;
    if today > *now { Ok(today) } else { today.checked_add(1.day()) }
}

fn price(text: &str) -> Result<Price, String> {
    let wrong = || "not a price such as 1.5: credits a million tokens, at most six decimals".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 6 || !part.bytes().chain(whole.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let micros = format!("{whole}{part:0<6}").parse::<i64>().map_err(|_| wrong())?;
    Some(Price(micros))
        .filter(|price| *price <= Price::MAX)
        .ok_or_else(|| "dearer than anyone may ask".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_price_is_read_to_the_micro_credit_and_never_rounded() {
        assert_eq!(price("1.5"), Ok(Price(1_500_000)));
        assert_eq!(price("0"), Ok(Price(0)));
        assert_eq!(price(".000001"), Ok(Price(1)));
        for wrong in ["1.0000001", "-1", "1,5", "1e3", "99999999999999999999", "2000000"] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_price_that_nothing_would_take_is_refused() {
        let share = |rest: &[&str]| Cli::try_parse_from([&["idlewatt", "share"], rest].concat());
        for forgotten in [
            &["qwen", "--price", "1.5"][..],
            &["qwen", "--with", "own", "--price", "1.5"],
            &["--price", "1.5"],
        ] {
            let refused = share(forgotten).unwrap_err().to_string();
            assert!(refused.contains("<on|off>"), "{refused}");
        }
        share(&["qwen", "--may-unload", "on", "--price", "1.5"]).unwrap_err();
        let both = share(&["qwen", "on", "--with", "own", "--price", "1.5"]).unwrap().command;
        assert!(matches!(both, Command::Share { price: Some(Price(1_500_000)), with: Some(Scope::Own), .. }));
    }

    #[test]
    fn limits_are_watts_and_a_list_may_be_left_out() {
        assert_eq!(
            limits("150, 200W,250.5"),
            Ok(Limits([150_000, 200_000, 250_500].map(Milliwatts).to_vec()))
        );
        let cli = Cli::try_parse_from(["idlewatt", "bench", "--cap-sweep", "--publish"]).unwrap();
        let Command::Bench(bench) = cli.command else { panic!() };
        assert_eq!((bench.cap_sweep, bench.publish), (Some(Limits(Vec::new())), true));
        for wrong in ["0", "-5", "a", "150,,200", "1e9"] {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_measured_command_keeps_its_own_options() {
        let cli =
            Cli::try_parse_from(["idlewatt", "measure", "--json", "--", "make", "--json", "-j2"]).unwrap();
        let Command::Measure(measure) = cli.command else { panic!() };
        assert_eq!(measure.command, ["make", "--json", "-j2"]);
        assert!(measure.json.json);
        assert!(Cli::try_parse_from(["idlewatt", "measure", "--json"]).is_err());
    }

    #[test]
    fn until_means_the_next_time_the_clock_shows_it() {
        let now: Zoned = "2026-11-21T17:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let at = |text: &str| next(text.parse().unwrap(), &now).unwrap().datetime().to_string();
        assert_eq!(at("18:00"), "2026-11-21T18:00:00");
        assert_eq!(at("09:15"), "2026-11-22T09:15:00");
    }

    #[test]
    fn a_pause_has_an_end_that_can_be_meant() {
        assert_eq!(duration("1h"), Ok(3600));
        assert_eq!(duration("1h 30m"), Ok(5400));
        assert!(duration("0s").is_err());
        assert!(duration("40d").is_err());
    }
}
