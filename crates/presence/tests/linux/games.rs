//! Games: a GameMode as it looks on a bus, the real daemon, and Steam as its files look.

use std::process::{Command, Stdio};

use idlewatt_presence::{Surroundings, watch};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;

use crate::rig::{Bus, Running, Xvfb, names, options, until_activity, until_says};

/// GameMode 1.7 with one game at most.
struct GameMode(Option<i32>);

const GAME: &str = "/com/feralinteractive/GameMode/Games/70";

#[zbus::interface(name = "com.feralinteractive.GameMode")]
impl GameMode {
    fn list_games(&self) -> Vec<(i32, OwnedObjectPath)> {
        self.0.map(|pid| (pid, OwnedObjectPath::try_from(GAME).unwrap())).into_iter().collect()
    }

    #[zbus(signal)]
    async fn game_registered(
        emitter: &SignalEmitter<'_>,
        pid: i32,
        path: OwnedObjectPath,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn game_unregistered(
        emitter: &SignalEmitter<'_>,
        pid: i32,
        path: OwnedObjectPath,
    ) -> zbus::Result<()>;
}

struct Game;

#[zbus::interface(name = "com.feralinteractive.GameMode.Game")]
impl Game {
    #[zbus(property)]
    fn executable(&self) -> &str {
        "/opt/games/tetris"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gamemode_tells_of_games_is_never_started_and_takes_its_games_with_it() {
    let (display, bus) = (Xvfb::start(None), Bus::start());
    let surroundings = Surroundings { session_bus: Some(bus.address.clone()), ..display.surroundings() };
    let watch = watch(options(surroundings));
    until_says(&watch, "GameMode", "not running").await;
    for _ in 0..2 {
        let daemon = bus
            .connection()
            .serve_at("/com/feralinteractive/GameMode", GameMode(None))
            .unwrap()
            .serve_at(GAME, Game)
            .unwrap()
            .name("com.feralinteractive.GameMode")
            .unwrap()
            .build()
            .await
            .unwrap();
        until_says(&watch, "GameMode", "no game").await;
        let games =
            daemon.object_server().interface::<_, GameMode>("/com/feralinteractive/GameMode").await.unwrap();
        let path = || OwnedObjectPath::try_from(GAME).unwrap();

        games.get_mut().await.0 = Some(70);
        GameMode::game_registered(games.signal_emitter(), 70, path()).await.unwrap();
        let activity = until_activity(&watch, |it| !it.games.is_empty()).await;
        assert_eq!(names(&activity.games), ["tetris"]);

        games.get_mut().await.0 = None;
        GameMode::game_unregistered(games.signal_emitter(), 70, path()).await.unwrap();
        until_activity(&watch, |it| it.games.is_empty()).await;

        games.get_mut().await.0 = Some(70);
        GameMode::game_registered(games.signal_emitter(), 70, path()).await.unwrap();
        until_activity(&watch, |it| !it.games.is_empty()).await;
        daemon.close().await.unwrap();
        until_activity(&watch, |it| it.games.is_empty()).await;
        until_says(&watch, "GameMode", "not running").await;
    }
}

/// The real daemon. A program asks it as `libgamemode` does; it looks after its games every 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_gamemode_is_understood() {
    let (display, bus) = (Xvfb::start(None), Bus::start());
    let root = "/".into();
    let surroundings =
        Surroundings { session_bus: Some(bus.address.clone()), root, ..display.surroundings() };
    let watch = watch(options(surroundings));
    until_says(&watch, "GameMode", "not running").await;
    let _daemon = Running(
        Command::new("gamemoded")
            .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gamemoded (Debian: gamemode) runs"),
    );
    until_says(&watch, "GameMode", "no game").await;

    let folder = tempfile::tempdir().unwrap();
    let game = Running::sleep_as(&folder.path().join("idlewatt-test-game"));
    let pid = i32::try_from(game.0.id()).unwrap();
    let client = bus.connection().build().await.unwrap();
    let daemon = zbus::Proxy::new(
        &client,
        "com.feralinteractive.GameMode",
        "/com/feralinteractive/GameMode",
        "com.feralinteractive.GameMode",
    )
    .await
    .unwrap();
    let answer: i32 = daemon.call("RegisterGame", &(pid,)).await.unwrap();
    assert_eq!(answer, 0, "GameMode takes the game");
    let activity = until_activity(&watch, |it| !it.games.is_empty()).await;
    assert_eq!(names(&activity.games), ["idlewatt-test-game"]);
    let answer: i32 = daemon.call("UnregisterGame", &(pid,)).await.unwrap();
    assert_eq!(answer, 0, "GameMode lets it go");
    until_activity(&watch, |it| it.games.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_from_steam_is_told_by_its_title_until_it_ends() {
    let home = tempfile::tempdir().unwrap();
    let steam = home.path().join(".steam/steam");
    for folder in ["logs", "steamapps"] {
        std::fs::create_dir_all(steam.join(folder)).unwrap();
    }
    let manifest = "\"AppState\"\n{\n\t\"appid\"\t\t\"440\"\n\t\"name\"\t\t\"Team Fortress 2\"\n}\n";
    std::fs::write(steam.join("steamapps/appmanifest_440.acf"), manifest).unwrap();
    let log = steam.join("logs/gameprocess_log.txt");
    let display = Xvfb::start(None);
    let home_folder = Some(home.path().to_owned());
    let surroundings = Surroundings { home: home_folder, root: "/".into(), ..display.surroundings() };
    let watch = watch(options(surroundings));
    until_says(&watch, "Steam", "no game").await;

    let mut text = String::new();
    for _ in 0..2 {
        let reaper = Running::sleep_as(&home.path().join("reaper"));
        let pid = reaper.0.id();
        text.push_str(&format!(
            "[2026-11-21 17:00:00] AppID 440 adding PID {pid} as a tracked process \
             \"/home/u/.local/share/Steam/ubuntu12_32/reaper SteamLaunch AppId=440 -- tf.sh\"\n"
        ));
        std::fs::write(&log, &text).unwrap();
        let activity = until_activity(&watch, |it| !it.games.is_empty()).await;
        assert_eq!(names(&activity.games), ["Team Fortress 2"]);
        drop(reaper);
        until_activity(&watch, |it| it.games.is_empty()).await;
        // A new session of Steam begins a new log.
        std::fs::rename(&log, log.with_extension("previous.txt")).unwrap();
        text.clear();
    }
}
