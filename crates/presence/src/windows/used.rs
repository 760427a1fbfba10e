//! What Windows and Steam note in the account's registry: who listens through a microphone, which game Steam runs.
//!
//! Windows keeps, for each program that may use the microphone, when it last began and stopped; a stop of zero is a use
//! that goes on (`CapabilityAccessManager\ConsentStore`). Steam keeps `RunningAppID`, zero for none, and each game's name.

use idlewatt_core::presence::App;
use windows_registry::{CURRENT_USER, Key};

const MICROPHONE: &str =
    r"Software\Microsoft\Windows\CurrentVersion\CapabilityAccessManager\ConsentStore\microphone";
const STOPPED: &str = "LastUsedTimeStop";
const STEAM: &str = r"Software\Valve\Steam";

/// The program that listens now.
pub(super) fn microphone() -> Option<App> {
    let store = CURRENT_USER.open(MICROPHONE).ok()?;
    // Programs from the store are listed by name, others by their path, below a key of their own.
    let others = store.open("NonPackaged").ok();
    [Some(store), others].into_iter().flatten().find_map(|store| {
        let mut names = store.keys().ok()?;
        names
            .find(|name| store.open(name).is_ok_and(|it| listens(&it)))
            .map(|name| App { name: short(&name) })
    })
}

fn listens(program: &Key) -> bool {
    program.get_u64(STOPPED) == Ok(0)
}

/// `C:#Program Files#Zoom#Zoom.exe` is a path; `Microsoft.Teams_8wekyb3d8bbwe` a package and its publisher.
fn short(name: &str) -> String {
    match name.rsplit_once('#') {
        Some((_, file)) => file.trim_end_matches(".exe").to_owned(),
        None => name.split('_').next().unwrap_or(name).to_owned(),
    }
}

/// The game that Steam runs, if any; `None` without Steam.
pub(super) fn steam() -> Option<Vec<App>> {
    let steam = CURRENT_USER.open(STEAM).ok()?;
    let running = steam.get_u32("RunningAppID").ok().filter(|id| *id != 0);
    let game = |id: u32| {
        let name = steam.open(format!(r"Apps\{id}")).and_then(|it| it.get_string("Name"));
        App { name: name.unwrap_or_else(|_| "a Steam game".to_owned()) }
    };
    Some(running.map(game).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_short_name() {
        assert_eq!(short("C:#Program Files#Zoom#bin#Zoom.exe"), "Zoom");
        assert_eq!(short("MSTeams_8wekyb3d8bbwe"), "MSTeams");
    }

    #[test]
    fn a_use_of_the_microphone_that_goes_on_is_a_call() {
        let key = format!(r"{MICROPHONE}\NonPackaged\C:#idlewatt#test-{}.exe", std::process::id());
        let program = CURRENT_USER.create(&key).unwrap();
        program.set_u64(STOPPED, 0).unwrap();
        assert!(microphone().is_some());
        program.set_u64(STOPPED, 133_000_000_000_000_000).unwrap();
        assert!(!listens(&program));
        CURRENT_USER.remove_tree(&key).unwrap();
    }
}
