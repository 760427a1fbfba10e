//! Answers every request of the control door, one arm each.

use std::sync::Arc;

use async_trait::async_trait;
use idlewatt_control::{Code, ControlError, Event, PauseFor, Program, Request, Response};
use idlewatt_core::Now;
use idlewatt_core::now::Deadline;
use idlewatt_protocol::{RequestId, UnixMillis};
use jiff::{SignedDuration, Timestamp, ToSpan};
use tokio::sync::broadcast;

use crate::config::{self, Config};
use crate::deciding::{KeptPause, PAUSE};
use crate::door::Resident;
use crate::money::{row_with_money, with_money};
use crate::node::Node;
use crate::problem::of_store;
use crate::{clock, receipts};

/// The node as screens meet it.
pub(crate) struct Desk(pub(crate) Arc<Node>);

#[async_trait]
impl Resident for Desk {
    async fn answer(&self, request: Request) -> Response {
        answer(&self.0, request).await.unwrap_or_else(Response::Error)
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
}

async fn answer(node: &Arc<Node>, request: Request) -> Result<Response, ControlError> {
    let now = clock::now();
    let services = || Response::Services(node.services.views(&node.slots));
    Ok(match request {
        Request::Status => Response::Status(Box::new(node.status().await)),
        Request::Doctor => Response::Doctor(Box::new(node.doctor().await)),
        Request::Services => services(),
        Request::Rescan => {
            node.look_now().await;
            services()
        }
        Request::Share { service, on, price } => {
            node.share(&service, on, price).await?;
            services()
        }
        Request::Networks => Response::Networks(node.network_views().await),
        Request::Join { invite } => {
            node.join(&invite).await?;
            Response::Networks(node.network_views().await)
        }
        Request::Leave { hub } => {
            node.leave(&hub).await?;
            Response::Networks(node.network_views().await)
        }
        Request::Pause(pause) => {
            set_pause(node, Some(KeptPause { until: end_of(pause, &now)? }), None).await?;
            Response::Status(Box::new(node.status().await))
        }
        Request::Resume => {
            set_pause(node, None, None).await?;
            node.look.notify_one();
            Response::Status(Box::new(node.status().await))
        }
        Request::ShareNow { seconds } => {
            node.share_now(seconds).await?;
            Response::Status(Box::new(node.status().await))
        }
        Request::Schedule => Response::Schedule(Box::new(node.schedule())),
        Request::Preview { settings } => Response::Preview(node.preview(&settings)?),
        Request::Programs => Response::Programs(programs().await),
        Request::GiveBack => {
            node.give_everything_back().await?;
            Response::Status(Box::new(node.status().await))
        }
        Request::Yields { limit } => {
            Response::Yields(kept(node.store.yields(between(limit, 1, 1000)?).await)?)
        }
        Request::MayUnload { service, on } => {
            node.may_unload(&service, on).await?;
            services()
        }
        Request::ShareWith { service, scope } => {
            node.share_with(&service, scope).await?;
            services()
        }
        Request::Requests { limit, before } => {
            let limit = between(limit, 1, 1000)?;
            let rows = kept(node.store.requests(limit, before, now.unix()).await)?;
            let config = node.config();
            Response::Requests(rows.into_iter().map(|it| row_with_money(it, config.settings())).collect())
        }
        Request::RequestDetail { id } => {
            let found = kept(node.store.request(id, now.unix()).await)?;
            let mut found = found.ok_or_else(|| no_request(id))?;
            found.row = row_with_money(found.row, node.config().settings());
            Response::RequestDetail(Box::new(found))
        }
        Request::Receipt { id } => {
            kept(node.store.request(id, now.unix()).await)?.ok_or_else(|| no_request(id))?;
            Response::Receipt(Box::new(receipts::of(node, id).await?))
        }
        Request::Samples { since } => Response::Samples(kept(node.store.samples(since, now.unix()).await)?),
        Request::LastSession => {
            let session = kept(node.store.last_session().await)?;
            Response::LastSession(session.map(|mut it| {
                it.totals = with_money(it.totals, node.config().settings());
                Box::new(it)
            }))
        }
        Request::Days { count } => {
            let days = kept(node.store.days(&now.day(), between(count, 1, 366)?).await)?;
            let config = node.config();
            let money = |(day, today)| (day, with_money(today, config.settings()));
            Response::Days(days.into_iter().map(money).collect())
        }
        Request::Hours { days } => Response::Hours(node.hours(between(days, 1, 366)?, &now).await?),
        Request::Power => Response::Power(Box::new(node.power_page().await)),
        Request::KeepBench { report, publish } => {
            Response::Published(node.keep_bench(report, publish).await?)
        }
        Request::ModelFiles => Response::ModelFiles(node.model_files().await?),
        Request::RunModel { id } => Response::ModelFiles(node.run_model(id.as_deref()).await?),
        Request::SetServerKey { server, key } => {
            node.set_server_key(&server, key).await?;
            Response::Done
        }
        Request::Config => Response::Config(node.config().entries()),
        Request::SetConfig { key, value } => {
            if config::is_local_only(&key)? {
                return Err(local_only(&key));
            }
            let (path, key, value) = (node.home.config.clone(), key, value);
            let config = blocking(move || config::set(&path, &key, &value)).await?;
            take_settings(node, config)
        }
        Request::ReloadConfig => {
            let path = node.home.config.clone();
            match blocking(move || Config::load(&path)).await {
                Ok(config) => take_settings(node, config),
                Err(error) => {
                    // The last good settings stay in force.
                    node.wants_person("config", &error);
                    return Err(error);
                }
            }
        }
        Request::OwnEndpoint => {
            Response::OwnEndpoint { url: format!("http://{}/v1", node.address), key: node.own_key.clone() }
        }
        Request::Panel => Response::Panel { url: node.panel() },
        Request::OwnHub { on: None } => Response::OwnHub(node.own_hub()),
        Request::InviteToOwnHub => Response::HubInvite(node.invite_to_own_hub().await?),
        Request::OwnHub { on: Some(true) } => Response::OwnHub(Some(node.start_own_hub().await?)),
        Request::OwnHub { on: Some(false) } => {
            node.stop_own_hub().await?;
            Response::OwnHub(None)
        }
        Request::Stop => {
            node.stopping.cancel();
            Response::Done
        }
    })
}

/// What runs now, to choose from.
async fn programs() -> Vec<Program> {
    let options = idlewatt_presence::Options::default();
    let look = tokio::task::spawn_blocking(move || idlewatt_presence::programs(&options));
    let found = look.await.unwrap_or_default();
    found.into_iter().map(|it| Program { name: it.name, likely: it.likely }).collect()
}

/// Pauses or resumes. Either ends a "share now" of before.
pub(crate) async fn set_pause(
    node: &Arc<Node>,
    pause: Option<KeptPause>,
    share_now_until: Option<Deadline>,
) -> Result<(), ControlError> {
    // The GPU is given back first; the note for the next start may take its time.
    node.pause.send_replace(pause.map(|it| it.in_force(&clock::now())));
    node.share_now_until.send_replace(share_now_until);
    node.decide();
    let text = serde_json::to_string(&pause).unwrap_or_default();
    kept(node.store.set_setting(PAUSE, &text).await).map_err(|error| ControlError {
        what: format!("It is done, but could not be kept. {}", error.what),
        why: "After its next start the engine does not know of it.".to_owned(),
        ..error
    })
}

/// When a pause ends; `None` until told.
fn end_of(pause: PauseFor, now: &Now) -> Result<Option<Timestamp>, ControlError> {
    let wrong = || {
        ControlError::new(
            Code::BadValue,
            "The pause would end in the past, or more than 31 days from now.",
            "Nothing was changed.",
            "Name a time within 31 days, or pause without one.",
        )
    };
    let end = match pause {
        PauseFor::Resumed => return Ok(None),
        PauseFor::Seconds { seconds } => {
            now.wall.checked_add(SignedDuration::from_secs(seconds.into())).map_err(|_| wrong())?
        }
        PauseFor::At { at: UnixMillis(at) } => Timestamp::from_millisecond(at).map_err(|_| wrong())?,
        PauseFor::Tomorrow => {
            let day = now.local().date().checked_add(1.day()).map_err(|_| wrong())?;
            let morning = day.at(6, 0, 0, 0).to_zoned(now.zone.clone()).map_err(|_| wrong())?;
            morning.timestamp()
        }
    };
    let longest = SignedDuration::from_hours(31 * 24);
    let ahead = end.duration_since(now.wall);
    if ahead > SignedDuration::ZERO && ahead <= longest { Ok(Some(end)) } else { Err(wrong()) }
}

/// Puts new settings into force.
pub(crate) fn take_settings(node: &Arc<Node>, config: Config) -> Response {
    let before = node.config();
    let (old, new) = (before.settings(), config.settings());
    let places = (new.nvml != old.nvml || new.sysfs != old.sysfs).then(|| new.places());
    let look = new.server_urls != old.server_urls || new.scan != old.scan;
    let entries = config.entries();
    node.config.send_replace(Arc::new(config));
    node.settled("config");
    node.note_hours();
    node.governing.look_in(node.cap_places());
    if let Some(places) = places {
        let node = Arc::clone(node);
        // A driver takes its time to load.
        tokio::task::spawn_blocking(move || {
            node.cards.look_in(&places);
            node.reread.notify_one();
        });
    }
    if look {
        node.look.notify_one();
    }
    node.decide();
    node.offer_changed();
    Response::Config(entries)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ControlError::new(Code::Internal, format!("{error}."), "This is a defect.", "Report it."))
    })
}

pub(crate) fn kept<T>(result: Result<T, idlewatt_store::StoreError>) -> Result<T, ControlError> {
    result.map_err(|error| of_store(&error))
}

fn between(number: u32, least: u32, most: u32) -> Result<u32, ControlError> {
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(ControlError::new(
        Code::BadRequest,
        format!("{number} is not from {least} to {most}."),
        "Nothing was looked up.",
        "Ask for fewer, several times if need be.",
    ))
}

fn no_request(id: RequestId) -> ControlError {
    ControlError::new(
        Code::NotFound,
        format!("This node served no request {id}."),
        "It keeps those that it answered itself.",
        "`idlewatt requests` lists them.",
    )
}

fn local_only(key: &str) -> ControlError {
    ControlError::new(
        Code::LocalOnly,
        format!("{key} cannot be set here."),
        "It names code, files or addresses: a page in a browser must not be able to change it.",
        format!("Use the command line: `idlewatt config set {key} VALUE`."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use std::time::Instant;

    #[test]
    fn tomorrow_is_six_in_the_morning_where_the_host_is() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = Now { monotonic: Instant::now(), wall: "2026-10-24T23:30:00Z".parse().unwrap(), zone };
        let end = end_of(PauseFor::Tomorrow, &now).unwrap().unwrap();
        // Berlin is on 25 October already, and leaves summer time that night.
        assert_eq!(end.to_string(), "2026-10-26T05:00:00Z");
    }

    #[test]
    fn a_pause_ends_within_31_days_or_when_told() {
        let now = clock::now();
        assert_eq!(end_of(PauseFor::Resumed, &now).unwrap(), None);
        assert!(end_of(PauseFor::At { at: UnixMillis(now.unix().0 - 1) }, &now).is_err());
        assert!(end_of(PauseFor::Seconds { seconds: 40 * 24 * 3600 }, &now).is_err());
        assert!(end_of(PauseFor::Seconds { seconds: 60 }, &now).unwrap().is_some());
    }
}
