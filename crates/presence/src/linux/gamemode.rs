//! Games that asked GameMode for their machine (`gamemoderun`, Lutris, Heroic and many games themselves do). Its daemon tells on the
//! session bus of every game that registers and every one that ends; it is never started by asking.

use std::future::pending;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use idlewatt_core::presence::{Activity, App};
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::names::BusName;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, Proxy};

use super::programs::Process;
use crate::teller::Teller;

const NAME: &str = "GameMode";
const DAEMON: &str = "com.feralinteractive.GameMode";

/// Tells of its games for as long as there is a session bus.
pub(super) async fn follow(bus: Option<&str>, proc: &Path, teller: &Teller) {
    let _part = teller.listening(NAME);
    let Some(address) = bus else {
        teller.unheard(NAME, "there is no session bus");
        return pending().await;
    };
    let lost = match listen(address, proc, teller).await {
        Ok(()) => "the session bus is gone".to_owned(),
        Err(error) => format!("the session bus does not tell of it ({error})"),
    };
    teller.unheard(NAME, lost);
    pending().await
}

async fn listen(address: &str, proc: &Path, teller: &Teller) -> zbus::Result<()> {
    let bus = zbus::connection::Builder::address(address)?.build().await?;
    let dbus = DBusProxy::new(&bus).await?;
    let mut owners = dbus.receive_name_owner_changed_with_args(&[(0, DAEMON)]).await?;
    let mut runs = dbus.name_has_owner(BusName::try_from(DAEMON)?).await?;
    loop {
        runs = if runs {
            with_daemon(&bus, &mut owners, proc, teller).await?
        } else {
            teller.says(NAME, "not running, so no game has asked for it", Activity::default());
            let Some(runs) = changed(&mut owners).await else { return Ok(()) };
            runs
        };
    }
}

/// Whether somebody owns the name now; `None` at the end of the bus.
async fn changed(owners: &mut NameOwnerChangedStream) -> Option<bool> {
    let owner = owners.next().await?;
    Some(owner.args().is_ok_and(|args| args.new_owner.is_some()))
}

/// Tells of games until the daemon ends, and whether another took its place.
async fn with_daemon(
    bus: &Connection,
    owners: &mut NameOwnerChangedStream,
    proc: &Path,
    teller: &Teller,
) -> zbus::Result<bool> {
    let daemon = interface(bus, "/com/feralinteractive/GameMode", DAEMON).await?;
    let registered = daemon.receive_signal("GameRegistered").await?;
    let unregistered = daemon.receive_signal("GameUnregistered").await?;
    let mut changes = stream::select(registered, unregistered);
    loop {
        // A daemon that is just ending answers no more; that it ended, the bus says next.
        let games = games(bus, &daemon, proc).await.unwrap_or_default();
        let says = match games.len() {
            0 => "no game".to_owned(),
            1 => "a game runs".to_owned(),
            n => format!("{n} games run"),
        };
        teller.says(NAME, says, Activity { games, ..Activity::default() });
        tokio::select! {
            Some(_) = changes.next() => {}
            owner = changed(owners) => return Ok(owner.unwrap_or(false)),
        }
    }
}

async fn games(bus: &Connection, daemon: &Proxy<'_>, proc: &Path) -> zbus::Result<Vec<App>> {
    let listed: Vec<(i32, OwnedObjectPath)> = daemon.call("ListGames", &()).await?;
    let mut games = Vec::new();
    for (pid, path) in listed {
        // A game may end between the two questions; while it is listed it counts, whatever its name.
        let game = interface(bus, path, "com.feralinteractive.GameMode.Game").await?;
        let file: String = game.get_property("Executable").await.unwrap_or_default();
        let process = u32::try_from(pid).ok().and_then(|pid| Process::read(proc, pid));
        games.push(App { name: name(process.as_ref(), &file) });
    }
    Ok(games)
}

/// By the process, which knows a Windows game from Wine; else by the file that GameMode was told.
fn name(process: Option<&Process>, file: &str) -> String {
    let of_file = || Path::new(file).file_name().map(|name| name.to_string_lossy().into_owned());
    process.map(Process::name).or_else(of_file).unwrap_or_else(|| "a game".to_owned())
}

async fn interface<'a>(
    bus: &Connection,
    path: impl TryInto<zbus::zvariant::ObjectPath<'a>, Error: Into<zbus::Error>>,
    name: &'static str,
) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(bus)
        .destination(DAEMON)?
        .path(path)?
        .interface(name)?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_that_is_gone_from_the_process_list_keeps_the_name_gamemode_knows() {
        assert_eq!(name(None, "/opt/games/tetris"), "tetris");
        assert_eq!(name(None, ""), "a game");
    }
}
