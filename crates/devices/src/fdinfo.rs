//! VRAM by process on cards of AMD and Intel: the kernel tells it for each open file of a card
//! (<https://docs.kernel.org/gpu/drm-usage-stats.html>), and for ROCm's processes in the folder of its own driver.
//!
//! Of other users' processes only root sees this. Looking takes milliseconds, and is done only when asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::sysfs::{names, words};
use crate::{GpuProcess, Places};

/// Who holds memory of these cards, given as PCI address and id.
pub(crate) fn processes(places: &Places, cards: &[(&str, &str)]) -> Vec<GpuProcess> {
    let mut vram: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pid in names(&places.proc).iter().filter_map(|name| name.parse::<u32>().ok()) {
        for client in clients(&places.proc.join(pid.to_string())) {
            let card = cards.iter().find(|(address, _)| *address == client.card);
            // One file that is open twice, or was inherited, is one client.
            if let Some((_, id)) = card.filter(|(address, _)| seen.insert((*address, client.id))) {
                *vram.entry((pid, id)).or_default() += client.vram;
            }
        }
    }
    for (pid, address, bytes) in of_rocm(&places.sysfs) {
        if let Some((_, id)) = cards.iter().find(|(it, _)| *it == address) {
            let known = vram.entry((pid, id)).or_default();
            *known = bytes.max(*known);
        }
    }
    let process = |((pid, gpu), bytes): ((u32, &str), u64)| GpuProcess {
        gpu: gpu.to_owned(),
        pid,
        vram: Some(bytes),
        utilisation: None,
    };
    vram.into_iter().map(process).collect()
}

/// What one open file of a card says.
#[derive(Debug, PartialEq, Eq)]
struct Client {
    card: String,
    id: u64,
    vram: u64,
}

/// The open files of cards of one process; none where it is another user's.
fn clients(process: &Path) -> Vec<Client> {
    let of_card = |file: &String| {
        let target = fs::read_link(process.join("fd").join(file)).ok()?;
        let drm = target.starts_with("/dev/dri");
        drm.then(|| client(&fs::read_to_string(process.join("fdinfo").join(file)).ok()?))?
    };
    names(process.join("fd")).iter().filter_map(of_card).collect()
}

fn client(text: &str) -> Option<Client> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    // What lies in the card now; older drivers have only the second word for it.
    let held = |kind: &str| -> Option<u64> {
        let region = |key: &str| {
            let region = key.strip_prefix("drm-")?.strip_prefix(kind)?.strip_prefix('-')?;
            Some(region.starts_with("vram") || region.starts_with("local"))
        };
        let sizes =
            fields.iter().filter(|(key, _)| region(key) == Some(true)).filter_map(|(_, value)| size(value));
        sizes.reduce(|sum, it| sum.saturating_add(it))
    };
    Some(Client {
        card: (*fields.get("drm-pdev")?).to_owned(),
        id: fields.get("drm-client-id")?.parse().ok()?,
        vram: held("resident").or_else(|| held("memory")).or_else(|| held("total")).unwrap_or_default(),
    })
}

/// `1536 KiB`
fn size(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    match words.next() {
        None => Some(value),
        Some("KiB") => value.checked_mul(1 << 10),
        Some("MiB") => value.checked_mul(1 << 20),
        Some(_) => None,
    }
}

/// Process, PCI address of the card, bytes; by ROCm's own driver, which tells every user.
fn of_rocm(sysfs: &Path) -> Vec<(u32, String, u64)> {
    let kfd = sysfs.join("class/kfd/kfd");
    let processes = names(kfd.join("proc"));
    if processes.is_empty() {
        return Vec::new();
    }
    let nodes = kfd.join("topology/nodes");
    let cards: BTreeMap<String, String> = names(&nodes)
        .iter()
        .filter_map(|node| {
            let node = nodes.join(node);
            Some((words(node.join("gpu_id"))?, address(&words(node.join("properties"))?)?))
        })
        .collect();
    let held = |pid: &String| {
        let folder = kfd.join("proc").join(pid);
        let cards = cards.iter();
        let held = cards.filter_map(|(card, address)| {
            let bytes = words(folder.join(format!("vram_{card}")))?.parse().ok()?;
            Some((pid.parse().ok()?, address.clone(), bytes))
        });
        held.filter(|(_, _, bytes)| *bytes > 0).collect::<Vec<_>>()
    };
    processes.iter().flat_map(held).collect()
}

/// `0000:03:00.0` from a node's `domain` and `location_id`.
fn address(properties: &str) -> Option<String> {
    let value = |name: &str| -> Option<u32> {
        properties.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let (domain, location) = (value("domain ")?, value("location_id ")?);
    // The processor's own node is nowhere.
    (location > 0).then(|| {
        format!("{domain:04x}:{:02x}:{:02x}.{}", location >> 8 & 0xff, location >> 3 & 0x1f, location & 7)
    })
}
