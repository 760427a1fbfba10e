//! The hub's chat page on a telephone's screen, let in by an invite: what is looked at is in `ui/e2e`.

use std::process::Command;

use idlewatt_tests::{Ran, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telephone_scans_an_invite_and_chats() {
    let system = System::start().await;
    let invite = || {
        let made = system.hub.run(&["invite", "create", "--account", "guest", "--json"]).json();
        made["page"].as_str().expect("a page").to_owned()
    };
    let mut command = Command::new("npm");
    command
        .args(["run", "--silent", "e2e", "--", "e2e/chat.test.mjs"])
        .current_dir(idlewatt_tests::here().join("../ui"))
        .env("IDLEWATT_INVITES", [invite(), invite()].join(" "));
    let ran = Ran::of(&mut command);
    println!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0));
    system.hub.check_ledger();
    let log = system.hub.process.log();
    assert!(
        !log.contains("sky blue") && !log.contains("token="),
        "the hub's log holds a prompt or an invite"
    );
}
