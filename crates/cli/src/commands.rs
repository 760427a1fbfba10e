//! What each command asks of the engine, and how its answer is shown.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write};
use std::process::ExitCode;

use idlewatt_control::{Code, ControlError, PauseFor, Request, Response, Secret};
use idlewatt_engine::config::{self, Config};
use idlewatt_engine::home::Home;
use serde::Serialize;
use serde_json::json;

use crate::args::{self, Command, Json, Switch};
use crate::client::{ask, ask_if_running};
use crate::exit::{Exit, Failure};
use crate::{bench, measure, receipt, run, say};

/// Does what the command line says.
///
/// # Errors
/// What went wrong, with its exit code.
pub(crate) fn execute(home: &Home, command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        // Ends with its command's exit code.
        Command::Measure(arguments) => return measure::execute(home, &arguments),
        Command::Bench(arguments) => bench::execute(home, &arguments),
        Command::Run { listen, tray } => run::run(home, listen, tray),
        Command::Doctor(json) => show(ask(home, &Request::Doctor)?, json),
        Command::Status(json) => show(ask(home, &Request::Status)?, json),
        Command::Power(json) => show(ask(home, &Request::Power)?, json),
        Command::Join { invite, json } => show(ask(home, &Request::Join { invite })?, json),
        Command::Leave { hub, json } => show(ask(home, &Request::Leave { hub })?, json),
        Command::Pause { duration, until, json } => {
            let pause = duration.map(|seconds| PauseFor::Seconds { seconds }).or(until);
            show(ask(home, &Request::Pause(pause.unwrap_or(PauseFor::Resumed)))?, json)
        }
        Command::Resume { now: false, json, .. } => show(ask(home, &Request::Resume)?, json),
        Command::Resume { now: true, duration, json } => {
            let seconds = duration.unwrap_or(args::SHARE_NOW);
            show(ask(home, &Request::ShareNow { seconds })?, json)
        }
        Command::Schedule(json) => show(ask(home, &Request::Schedule)?, json),
        Command::Share { service: Some(service), may_unload: Some(switch), json, .. } => {
            let on = switch == Switch::On;
            show(ask(home, &Request::MayUnload { service, on })?, json)
        }
        Command::Share { service: Some(service), switch: None, with: Some(scope), json, .. } => {
            show(ask(home, &Request::ShareWith { service, scope })?, json)
        }
        Command::Share { service: Some(service), switch: Some(switch), price, with, json, .. } => {
            let on = switch == Switch::On;
            if let Some(scope) = with {
                // Before it is offered to anyone.
                ask(home, &Request::ShareWith { service: service.clone(), scope })?;
            }
            show(ask(home, &Request::Share { service, on, price })?, json)
        }
        Command::Share { json, .. } => show(ask(home, &Request::Rescan)?, json),
        Command::Back(json) => show(ask(home, &Request::GiveBack)?, json),
        Command::Yields { limit, json } => show(ask(home, &Request::Yields { limit })?, json),
        Command::Hours { days, json } => show(ask(home, &Request::Hours { days })?, json),
        Command::Models { action, json } => {
            let request = match action {
                None => Request::ModelFiles,
                Some(args::Models::Run { id }) => Request::RunModel { id: Some(id).filter(|it| it != "off") },
            };
            show(ask(home, &request)?, json)
        }
        Command::Key { action, json } => {
            let (server, key) = match action {
                args::Key::Set { server } => (server, Some(secret_from_stdin()?)),
                args::Key::Remove { server } => (server, None),
            };
            show(ask(home, &Request::SetServerKey { server, key })?, json)
        }
        Command::Requests { limit, json } => {
            let served = ask(home, &Request::Requests { limit, before: None })?;
            show(if json.json { served } else { with_names(home, served)? }, json)
        }
        Command::Receipt(command) => receipt::execute(home, command),
        Command::Config(command) => settings(home, command),
        Command::Hub { action, json } => {
            let request = match action {
                Some(args::Hub::Start) => Request::OwnHub { on: Some(true) },
                Some(args::Hub::Stop) => Request::OwnHub { on: Some(false) },
                Some(args::Hub::Show) | None => Request::OwnHub { on: None },
                Some(args::Hub::Invite) => Request::InviteToOwnHub,
            };
            show(ask(home, &request)?, json)
        }
        Command::Panel(json) => show(ask(home, &Request::Panel)?, json),
        Command::Endpoint(json) => show(ask(home, &Request::OwnEndpoint)?, json),
        Command::Stop(json) => show(ask(home, &Request::Stop)?, json),
    };
    done.map(|()| Exit::Done.into())
}

/// One line of stdin: as an argument or in the environment it would be there for others to read.
fn secret_from_stdin() -> Result<Secret, Failure> {
    if std::io::stdin().is_terminal() {
        print("The server's API key (it is shown as you type): ")?;
    }
    let mut line = String::new();
    std::io::stdin().lock().take(8192).read_line(&mut line).map_err(|error| {
        ControlError::new(
            Code::BadRequest,
            format!("No key could be read: {error}."),
            "The key is read from stdin.",
            "Type it, or pipe it in: `idlewatt key set SERVER < FILE`.",
        )
    })?;
    Ok(Secret(line.trim().to_owned()))
}

/// Requests with the names of their networks, which people know, for the ids, which programs need.
fn with_names(home: &Home, served: Response) -> Result<Response, Failure> {
    let Response::Requests(mut rows) = served else { return Ok(served) };
    if let Response::Networks(networks) = ask(home, &Request::Networks)? {
        for row in &mut rows {
            if let Some(network) = networks.iter().find(|it| it.id == row.network) {
                row.network.clone_from(&network.name);
            }
        }
    }
    Ok(Response::Requests(rows))
}

/// Settings are the file's: they can be read and changed whether or not an engine runs.
fn settings(home: &Home, command: args::Config) -> Result<(), Failure> {
    match command {
        args::Config::Path(json) => {
            let path = home.config.display().to_string();
            if json.json { print_json(&json!({ "path": path })) } else { print(&format!("{path}\n")) }
        }
        args::Config::Get { key: None, json } => {
            show(Response::Config(Config::load(&home.config)?.entries()), json)
        }
        args::Config::Get { key: Some(key), json } => {
            config::is_local_only(&key)?;
            let entry = Config::load(&home.config)?.entries().into_iter().find(|entry| entry.key == key);
            match entry {
                Some(entry) if json.json => print_json(&entry),
                Some(entry) => print(&say::setting(&entry)),
                None => Ok(()),
            }
        }
        args::Config::Set { key, value, json } => {
            home.prepare()?;
            let config = config::set(&home.config, &key, &value)?;
            let told = ask_if_running(home, &Request::ReloadConfig)?;
            let entries = match told {
                Some(Response::Config(entries)) => entries,
                _ => config.entries(),
            };
            match entries.into_iter().find(|entry| entry.key == key) {
                Some(entry) if json.json => print_json(&entry),
                Some(entry) => print(&format!("{} = {}\n", entry.key, say::value(&entry.value))),
                None => Ok(()),
            }
        }
    }
}

/// Prints an answer.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(response: Response, json: Json) -> Result<(), Failure> {
    if !json.json {
        return print(&say::response(&response, &jiff::Zoned::now()));
    }
    match response {
        Response::Status(it) => print_json(&it),
        Response::Doctor(it) => print_json(&it),
        Response::Services(it) => print_json(&it),
        Response::Networks(it) => print_json(&it),
        Response::Schedule(it) => print_json(&it),
        Response::Preview(it) => print_json(&it),
        Response::Yields(it) => print_json(&it),
        Response::ModelFiles(it) => print_json(&it),
        Response::Hours(it) => print_json(&it),
        Response::Programs(it) => print_json(&it),
        Response::Requests(it) => print_json(&it),
        Response::Power(it) => print_json(&it),
        Response::Published(it) => print_json(&it),
        Response::Receipt(it) => print_json(&it),
        Response::Config(it) => print_json(&it),
        Response::OwnEndpoint { url, key } => print_json(&json!({ "url": url, "key": key })),
        Response::Panel { url } => print_json(&json!({ "url": url })),
        Response::OwnHub(it) => print_json(&it),
        Response::HubInvite(it) => print_json(&it),
        Response::Done => print_json(&json!({ "done": true })),
        Response::RequestDetail(it) => print_json(&it),
        Response::Samples(it) => print_json(&it),
        Response::LastSession(it) => print_json(&it),
        Response::Days(it) => print_json(&it),
        Response::Error(error) => Err(error.into()),
    }
}

/// Prints JSON and a line end.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| not_printed(&error))?;
    print(&format!("{text}\n"))
}

/// Prints text as it is.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `idlewatt requests | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| not_printed(&error)),
    }
}

fn not_printed(error: &dyn std::error::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("The answer could not be printed: {error}."),
        "What was asked is done.",
        "Look with `idlewatt status`.",
    )
}
