//! What people really have, said: a server that wants a key, a program whose server is off, a server on another machine.

use idlewatt_control::{Check, CheckLevel};
use idlewatt_servers::{Installed, ServerError, installed, is_loopback};

use crate::holders;
use crate::node::{Node, lock};
use crate::problem::sentence;
use crate::server_keys::shown;

impl Node {
    /// Lines for `doctor` about servers that offer nothing yet, or less than they could.
    pub(crate) async fn server_checks(&self) -> Vec<Check> {
        let check =
            |level, what, action: Option<String>| Check { area: "servers".to_owned(), level, what, action };
        let found = lock(&self.found).clone();
        let mut checks = Vec::new();
        for it in &found {
            let name = it.server.as_ref().map_or_else(|| shown(&it.url), |server| server.label());
            match &it.models {
                Err(error) => {
                    let action = match error {
                        ServerError::KeyNeeded | ServerError::KeyWrong => {
                            Some(format!("`idlewatt key set {}`, and paste its key.", shown(&it.url)))
                        }
                        ServerError::Certificate => {
                            Some("Give the server a certificate that this machine trusts.".to_owned())
                        }
                        _ if it.named => Some("Start it, or take it out of `servers.urls`.".to_owned()),
                        _ => None,
                    };
                    checks.push(check(
                        CheckLevel::Warning,
                        format!("{name}: {}", sentence(&error.to_string())),
                        action,
                    ));
                }
                Ok(models) if models.is_empty() => checks.push(check(
                    CheckLevel::Note,
                    format!("{name} runs and has no model loaded."),
                    Some("Load a model there.".to_owned()),
                )),
                Ok(_) if !is_loopback(&it.url) => checks.push(check(
                    CheckLevel::Note,
                    format!("{name} is on another machine: what it draws is unknown here."),
                    None,
                )),
                Ok(_) => {}
            }
        }
        let home = directories::BaseDirs::new();
        let programs = home.map(|it| installed(it.home_dir())).unwrap_or_default();
        let runs = |it: &Installed| {
            found.iter().any(|found| found.server.as_ref().is_some_and(|server| server.kind() == it.kind))
        };
        let off: Vec<Installed> = programs.into_iter().filter(|it| !runs(it)).collect();
        let limit = self.config().settings().policy.gpu_memory;
        checks.extend(holders::checks(&off, &self.memory_holders().await, limit));
        checks
    }
}
