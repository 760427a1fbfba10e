//! What Steam's `gameprocess_log.txt` says of games that were started.

use std::path::Path;

/// A game's reaper was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// As Steam sees it, which under Flatpak is not as everybody else does.
    pid: u32,
    app: u32,
}

/// All launches in a log, the oldest first. A line of one (2022 said `Game` where later ones say `AppID`):
/// `[2026-05-04 21:56:20] AppID 440 adding PID 3764 as a tracked process "…/reaper SteamLaunch AppId=440 -- …"`.
pub(super) fn launches(log: &str) -> Vec<Launch> {
    let launch = |line: &str| {
        let (_, after) = line.split_once(" adding PID ")?;
        let (_, app) = after.split_once(" SteamLaunch AppId=")?;
        Some(Launch { pid: number(after)?, app: number(app)? })
    };
    log.lines().filter_map(launch).collect()
}

/// The launches whose reaper runs still, by its process here.
pub(super) fn alive(launches: &[Launch], proc: &Path) -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let reaper = |pid: u32| {
        let comm = std::fs::read(proc.join(pid.to_string()).join("comm")).ok()?;
        // A process of another kind has taken the number since.
        (comm == b"reaper\n").then_some(())?;
        let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
        let inner = innermost(&status).unwrap_or(pid);
        launches.iter().rev().find(|launch| launch.pid == inner).map(|launch| (pid, launch.app))
    };
    pids.filter_map(reaper).collect()
}

/// The number by which a process knows itself: the last of `NSpid`, one for each sandbox around it.
fn innermost(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

/// The digits a text begins with.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
[2022-09-28 18:35:07] Game 16344590979463905280 adding PID 64508 as a tracked process "/home/deck/.local/share/Steam/ubuntu12_32/reaper SteamLaunch AppId=2630048210 -- /usr/bin/flatpak run com.google.Chrome"
[2022-09-28 18:35:07] Game 16344590979463905280 adding PID 64509 as a tracked process
[2026-05-04 21:56:20] AppID 440 adding PID 70 as a tracked process "/home/u/.local/share/Steam/ubuntu12_32/reaper SteamLaunch AppId=440 -- hl2.sh"
[2026-05-04 21:56:21] AppID 440 adding PID 71 as a tracked process "hl2_linux"
[2026-05-04 22:08:28] AppID 440 no longer tracking PID 71, exit code 0
[2026-05-04 22:08:28] AppID x adding PID SteamLaunch AppId= nonsense
"#;

    #[test]
    fn a_launch_is_the_line_that_names_the_reaper() {
        let expected = [Launch { pid: 64508, app: 2_630_048_210 }, Launch { pid: 70, app: 440 }];
        assert_eq!(launches(LOG), expected);
    }

    fn process(proc: &Path, pid: u32, comm: &str, nspid: &str) {
        let folder = proc.join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
        std::fs::write(folder.join("status"), format!("Name:\t{comm}\nNSpid:\t{nspid}\n")).unwrap();
    }

    #[test]
    fn a_game_runs_as_long_as_its_reaper() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 70, "reaper", "70");
        // The other's number is somebody else's by now.
        process(proc.path(), 64508, "bash", "64508");
        assert_eq!(alive(&launches(LOG), proc.path()), [(70, 440)]);
    }

    #[test]
    fn a_game_in_a_sandbox_is_known_by_its_number_there() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 9_001, "reaper", "9001\t70");
        process(proc.path(), 70, "kthreadd", "70");
        assert_eq!(alive(&launches(LOG), proc.path()), [(9_001, 440)]);
    }
}
