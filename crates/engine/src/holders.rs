//! Programs that hold memory of the cards beside Idlewatt and the model servers that it knows, for `doctor`: what a model
//! lacks room for, and what brings it back. Looked at when somebody asks, and not otherwise.

use std::collections::BTreeMap;

use idlewatt_control::{Check, CheckLevel};
use idlewatt_core::yielding::story::gigabytes;
use idlewatt_devices::{GpuProcess, program};
use idlewatt_servers::Installed;

use crate::node::{Node, lock};
use crate::others::others_among;

/// Less than this is a window's frame buffer, and no model, bytes.
const TOLD: u64 = 256 << 20;

/// What one program holds of one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its file where that may be seen, its name otherwise.
    program: String,
    /// The card's name.
    card: String,
    /// Bytes.
    held: u64,
}

impl Holder {
    /// What it is called.
    fn name(&self) -> &str {
        self.program.rsplit(['/', '\\']).next().unwrap_or(&self.program)
    }
}

impl Node {
    /// What others hold, the most first; nothing where no driver tells it by process.
    pub(crate) async fn memory_holders(&self) -> Vec<Holder> {
        let cards = self.cards.latest();
        if cards.is_empty() {
            return Vec::new();
        }
        let mut ports = self.services.ports_here();
        ports.extend(self.own_server.url().and_then(|it| it.port()));
        let sensors = self.cards.sensors();
        let look = move || {
            let users = lock(&sensors).gpus().processes();
            let others = others_among(&users, &ports);
            let users = users.into_iter().filter(|it| others.contains(&it.pid));
            let names: BTreeMap<&str, &str> =
                cards.iter().map(|it| (it.id.as_str(), it.name.as_str())).collect();
            added(users, &names, |pid| program(pid).unwrap_or_else(|| format!("process {pid}")))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// A program's processes together, card by card.
fn added(
    users: impl Iterator<Item = GpuProcess>,
    cards: &BTreeMap<&str, &str>,
    program: impl Fn(u32) -> String,
) -> Vec<Holder> {
    let mut held: BTreeMap<(String, String), u64> = BTreeMap::new();
    for it in users {
        let card = cards.get(it.gpu.as_str()).map_or_else(|| it.gpu.clone(), |name| (*name).to_owned());
        *held.entry((program(it.pid), card)).or_default() += it.vram.unwrap_or_default();
    }
    let all = held.into_iter().map(|((program, card), held)| Holder { program, card, held });
    let mut holders: Vec<Holder> = all.filter(|it| it.held >= TOLD).collect();
    holders.sort_by_key(|it| std::cmp::Reverse(it.held));
    holders
}

/// Lines for `doctor`: programs that could serve and have their server off (`off`), some with a model loaded all the same,
/// and whatever else holds memory. `limit`: with more than that held nothing is shared, bytes.
pub(crate) fn checks(off: &[Installed], holders: &[Holder], limit: Option<u64>) -> Vec<Check> {
    let check =
        |level, what, action: Option<String>| Check { area: "servers".to_owned(), level, what, action };
    let servers = off.iter().map(|it| {
        let its: Vec<&Holder> = holders.iter().filter(|holder| it.has(&holder.program)).collect();
        let parts: Vec<String> =
            its.iter().map(|it| format!("{} of {}", gigabytes(it.held), it.card)).collect();
        if parts.is_empty() {
            let what = format!("{} is installed, and its server is off.", it.name);
            return check(CheckLevel::Note, what, Some(it.turn_on.to_owned()));
        }
        let held = parts.join(" and ");
        check(
            CheckLevel::Warning,
            format!("{} holds {held}, and its server is off: a model is loaded in its own window.", it.name),
            Some(format!("To share that model: {} Unloaded in {}, its memory is free.", it.turn_on, it.name)),
        )
    });
    let others = holders.iter().filter(|holder| !off.iter().any(|it| it.has(&holder.program))).map(|it| {
        let stops = limit.filter(|limit| it.held > *limit).map(|limit| {
            format!(
                "End it to share: nothing is shared while more than {} are held (`share.gpu_memory`).",
                gigabytes(limit)
            )
        });
        check(CheckLevel::Note, format!("{} holds {} of {}.", it.name(), gigabytes(it.held), it.card), stops)
    });
    servers.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use idlewatt_servers::installed;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn holder(program: &str, held: u64) -> Holder {
        Holder { program: program.into(), card: "RTX 4090".into(), held }
    }

    #[test]
    fn lm_studio_with_its_server_off_and_a_model_loaded_is_told_with_both_ways_out() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".lmstudio/bin")).unwrap();
        let off = installed(home.path());
        let idle = checks(&off, &[], None);
        assert_eq!(idle[0].what, "LM Studio is installed, and its server is off.");
        for program in
            ["/tmp/.mount_LM-Stu8XyZ/lm-studio", "/home/i/.lmstudio/.internal/utils/node", "lm-studio"]
        {
            let told = checks(&off, &[holder(program, 62 * GB / 10)], None);
            assert_eq!((told.len(), told[0].level), (1, CheckLevel::Warning));
            let what = "LM Studio holds 6.2 GB of RTX 4090, and its server is off: a model is loaded in its own window.";
            assert_eq!(told[0].what, what);
            let action = told[0].action.as_deref().unwrap();
            assert!(action.contains("lms server start") && action.contains("its memory is free"), "{action}");
        }
    }

    #[test]
    fn whatever_else_holds_memory_is_named_and_what_it_keeps_away() {
        let told = checks(&[], &[holder("/opt/blender/blender", 5 * GB), holder("Xorg", GB)], Some(4 * GB));
        assert_eq!(told[0].what, "blender holds 5.0 GB of RTX 4090.");
        assert!(told[0].action.as_deref().unwrap().contains("more than 4.0 GB"));
        assert_eq!((told[1].what.as_str(), &told[1].action), ("Xorg holds 1.0 GB of RTX 4090.", &None));
    }

    #[test]
    fn a_programs_processes_count_together_and_a_window_counts_for_nothing() {
        let user = |pid, vram| GpuProcess { gpu: "GPU-1".into(), pid, vram, utilisation: None };
        let users = [user(1, Some(GB)), user(2, Some(GB)), user(3, Some(TOLD - 1)), user(4, None)];
        let cards = BTreeMap::from([("GPU-1", "RTX 4090")]);
        let name = |pid| if pid < 3 { "chrome".to_owned() } else { format!("process {pid}") };
        assert_eq!(added(users.into_iter(), &cards, name), [holder("chrome", 2 * GB)]);
    }
}
