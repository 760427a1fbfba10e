//! `idlewatt doctor`.

use idlewatt_control::{CheckLevel, Doctor};

pub(super) fn doctor(doctor: &Doctor) -> String {
    let mut out = format!("Idlewatt {}\n\n", doctor.version);
    for check in &doctor.checks {
        let mark = match check.level {
            CheckLevel::Good => "ok",
            CheckLevel::Note => "note",
            CheckLevel::Warning => "warn",
            CheckLevel::Problem => "FAIL",
        };
        out.push_str(&format!("{mark:<4}  {:<9}  {}\n", check.area, check.what));
        if let Some(action) = &check.action {
            out.push_str(&format!("{:17}→ {action}\n", ""));
        }
    }
    out
}
