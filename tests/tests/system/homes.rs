//! Homes and folders: who owns them, and what happens when they cannot be used.

use std::fs;
use std::path::Path;
use std::process::Command;

use idlewatt_tests::{Hub, Node, Ran, SmallDisk, binary, hub, node};

/// What, why, what to do; and nothing on stdout.
#[track_caller]
fn is_clear(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains("why:") && ran.stderr.contains("do:"), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

fn run(home: &Path, listen: &str) -> Ran {
    Ran::of(node::command(home).args(["run", "--listen", listen]))
}

#[test]
fn a_second_engine_in_one_home_is_refused() {
    let node = Node::start();
    is_clear(&run(node.home(), "127.0.0.1:0"), 4);
    assert!(node.status()["state"].is_string(), "the first one goes on");
}

#[test]
fn a_taken_port_is_named() {
    let node = Node::start();
    let address = node.panel.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let home = tempfile::tempdir().unwrap();
    let ran = run(home.path(), &address);
    is_clear(&ran, 5);
    assert!(ran.stderr.contains(&address), "{ran:?}");
}

#[test]
fn a_command_without_an_engine_says_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    is_clear(&Ran::of(node::command(home.path()).arg("status")), 3);
}

#[test]
fn a_corrupt_settings_line_is_named_and_kept() {
    let home = tempfile::tempdir().unwrap();
    let text = "[share]\nidle_after = \"5m\"\nwindows = \"Funday 22:00-07:00\"\n";
    fs::write(home.path().join("idlewatt.toml"), text).unwrap();
    let ran = run(home.path(), "127.0.0.1:0");
    is_clear(&ran, 8);
    assert!(ran.stderr.contains('3'), "it names the line: {ran:?}");
    assert_eq!(
        fs::read_to_string(home.path().join("idlewatt.toml")).unwrap(),
        text,
        "nothing is overwritten"
    );
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let mut node = Node::start();
    node.process.kill();
    let databases: Vec<_> = fs::read_dir(node.home().join("data"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "db"))
        .collect();
    assert!(!databases.is_empty());
    for path in &databases {
        rusqlite::Connection::open(path).unwrap().pragma_update(None, "user_version", 9_999).unwrap();
    }
    is_clear(&run(node.home(), "127.0.0.1:0"), 10);
    let version: i64 = rusqlite::Connection::open(&databases[0])
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 9_999);
}

#[test]
fn a_hubs_database_of_a_newer_version_is_refused() {
    let mut hub = Hub::start();
    hub.process.kill();
    let path = hub.folder().join("data/hub.db");
    rusqlite::Connection::open(path).unwrap().pragma_update(None, "user_version", 9_999).unwrap();
    let ran = hub.run(&["ledger", "check"]);
    assert!(ran.code.is_some_and(|code| code != 0) && ran.stderr.contains("newer"), "{ran:?}");
}

#[test]
fn a_folder_that_this_user_may_not_write_is_said_and_left_as_it_is() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let may = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let is_root = fs::metadata(&home).unwrap().uid() == 0;
    // Permissions bind nobody who is root: then the programs run as nobody, from where nobody may read them.
    let program = |name: &str| {
        let copy = folder.path().join(name);
        fs::copy(binary(name), &copy).unwrap();
        let mut command = Command::new(copy);
        command.env("IDLEWATT_HOME", &home).env("HOME", &home);
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        command
    };
    let (mut node, mut hub) = (program("idlewatt"), program("idlewatt-hub"));
    may(folder.path(), 0o755);
    may(&home, 0o555);
    is_clear(&Ran::of(node.args(["run", "--listen", "127.0.0.1:0"])), 6);
    let ran = Ran::of(hub.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&home));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("cannot write") && ran.stderr.contains("--data"), "{ran:?}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "nothing was written");
    may(&home, 0o755);
}

#[test]
fn a_full_disk_is_said_at_the_start_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::on(folder.path(), 2) else {
        println!("skipped: this user may not mount a small disk");
        return;
    };
    let (home, data) = (folder.path().join("home"), folder.path().join("hub"));
    fs::create_dir(&home).unwrap();
    fs::write(home.join("idlewatt.toml"), "# mine\n").unwrap();
    disk.fill();
    is_clear(&run(&home, "127.0.0.1:0"), 7);
    let ran = hub::command(&["serve", "--listen", "127.0.0.1:0"], &data);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("full") && ran.stderr.contains("Make space"), "{ran:?}");
    assert_eq!(fs::read_to_string(home.join("idlewatt.toml")).unwrap(), "# mine\n");
}

/// A file where a folder should be binds everybody.
#[test]
fn a_home_that_cannot_be_written_is_said_once_and_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    fs::write(&home, "a file").unwrap();
    is_clear(&run(&home, "127.0.0.1:0"), 6);
    let ran = hub::command(&["serve", "--listen", "127.0.0.1:0"], &home);
    assert!(ran.code.is_some_and(|code| code != 0) && !ran.stderr.contains("panicked"), "{ran:?}");
    assert_eq!(fs::read_to_string(&home).unwrap(), "a file");
}

#[test]
fn two_hubs_never_share_a_folder() {
    let hub = Hub::start();
    let ran = hub.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("data"), "{ran:?}");
}

#[test]
fn a_hubs_taken_port_is_named() {
    let hub = Hub::start();
    let address = hub.url.trim_start_matches("http://").to_owned();
    let other = tempfile::tempdir().unwrap();
    let ran = hub::command(&["serve", "--listen", &address], other.path());
    assert!(ran.code.is_some_and(|code| code != 0) && ran.stderr.contains(&address), "{ran:?}");
}

#[test]
fn keys_and_control_files_are_for_this_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let (node, hub) = (Node::start(), Hub::start());
    let private = [
        node.home().join("run/control.json"),
        hub.folder().join("data/hub.key"),
        hub.folder().join("data/admin.sock"),
        hub.folder().join("data/hub.db"),
        hub.folder().join("data/hub.db-wal"),
        node.home().join("data/node.db"),
        node.home().join("data/node.db-wal"),
        node.home().join("data/node.db-shm"),
        node.home().join("data/node.key"),
        node.home().join("data/own.key"),
    ];
    for path in private {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    for path in [node.home().join("run"), node.home().join("data"), hub.folder().join("data")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    for name in ["idlewatt", "idlewatt-hub"] {
        assert_eq!(Ran::of(Command::new(binary(name)).arg("surprise")).code, Some(2), "{name}");
    }
}
