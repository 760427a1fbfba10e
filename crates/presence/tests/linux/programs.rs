//! Programs of the host's list, among the real ones of this machine.

use idlewatt_presence::{Surroundings, programs, watch};

use crate::rig::{Running, names, options, until_activity, until_says};

fn surroundings() -> Surroundings {
    Surroundings { root: "/".into(), ..Surroundings::default() }
}

#[tokio::test]
async fn a_listed_program_is_told_while_it_runs_and_while_it_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("idlewatt-test-program");
    let running = Running::sleep_as(&path);
    let watch = watch(options(surroundings()));
    until_says(&watch, "listed programs", "none is looked for").await;

    let wanted = ["Idlewatt-Test-Program".to_owned(), path.display().to_string(), "not-there".to_owned()];
    watch.look_for(&wanted);
    let activity = until_activity(&watch, |it| !it.listed.is_empty()).await;
    assert_eq!(names(&activity.listed), [wanted[0].as_str(), wanted[1].as_str()], "each by its entry");

    watch.look_for(&[]);
    until_activity(&watch, |it| it.listed.is_empty()).await;
    watch.look_for(&wanted);
    until_activity(&watch, |it| !it.listed.is_empty()).await;
    drop(running);
    until_activity(&watch, |it| it.listed.is_empty()).await;
}

#[test]
fn the_picker_lists_each_running_program_of_this_account_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&other).unwrap();
    let _running = [one, other].map(|it| Running::sleep_as(&it.join("idlewatt-test-program")));
    let found = programs(&options(surroundings()));
    let ours = found.iter().filter(|it| it.name == "idlewatt-test-program").count();
    assert_eq!(ours, 1, "{found:?}");
    assert!(found.is_sorted_by_key(|it| !it.likely), "the likely ones first");
}
