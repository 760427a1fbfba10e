//! Model files that are on this machine, and how each would be loaded: what a host who has no model server chooses from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use idlewatt_control::{Check, CheckLevel, Code, ControlError, ModelFile};
use idlewatt_devices::Machine;
use idlewatt_servers::Launch;
use idlewatt_servers::files::{ModelOnDisk, Places, Source, programs, version};
use idlewatt_servers::gguf::{GgufError, Header, Purpose};
use idlewatt_servers::plan::{CardRoom, Chosen, NoFit, Plan, Room, plan};

use crate::config::{self, ManagedServer};
use crate::desk::{blocking, take_settings};
use crate::node::Node;

/// Main memory that is left to everything else, bytes.
const LEFT: u64 = 2 << 30;
/// What is taken where nobody says what fits.
const CONTEXT: u32 = 4096;
const SLOTS: u32 = 2;
/// Lines of a failed server's output that `doctor` shows.
const PRINTED: usize = 10;

impl Node {
    /// Every model file found, with the one in use, and how it would be loaded now.
    pub(crate) async fn model_files(&self) -> Result<Vec<ModelFile>, ControlError> {
        let room = self.room().await;
        let config = self.config();
        let wanted = &config.settings().managed;
        let models = self.models_on_disk(wanted).await?;
        Ok(models.iter().map(|it| view(it, wanted, &room)).collect())
    }

    /// Runs the model of this id, name, or unambiguous part of it, from now on; none stops it.
    pub(crate) async fn run_model(
        self: &Arc<Self>,
        wanted: Option<&str>,
    ) -> Result<Vec<ModelFile>, ControlError> {
        let path = match wanted {
            None => String::new(),
            Some(wanted) => self.choose(wanted).await?,
        };
        let file = self.home.config.clone();
        let config = blocking(move || config::set(&file, "managed.model", &path)).await?;
        take_settings(self, config);
        self.model_files().await
    }

    async fn choose(&self, wanted: &str) -> Result<String, ControlError> {
        let config = self.config();
        let settings = &config.settings().managed;
        let models = self.models_on_disk(settings).await?;
        let model = named(&models, wanted)?;
        let header = usable(model)?;
        self.program(settings)?;
        planned(header, settings, &self.room().await).map_err(|error| no_fit(&error))?;
        model.path.to_str().map(str::to_owned).ok_or_else(|| {
            ControlError::new(
                Code::BadValue,
                "The model's path holds what is no text.",
                "The settings file cannot name it.",
                "Rename its folder, or move the file.",
            )
        })
    }

    async fn models_on_disk(&self, wanted: &ManagedServer) -> Result<Vec<ModelOnDisk>, ControlError> {
        let (files, model, folders) = (self.own_server.files(), wanted.model.clone(), wanted.folders.clone());
        blocking(move || {
            let home = user_home();
            let mut models = files.find(&Places::of(&home, |name| std::env::var_os(name), &folders));
            let chosen = model.filter(|chosen| !models.iter().any(|it| is_same(&it.path, chosen)));
            models.extend(chosen.map(|it| files.one(&it)));
            Ok(models)
        })
        .await
    }

    /// What is started for these settings, as it fits now.
    ///
    /// # Errors
    /// When the file is no model that can be loaded, nothing to load it with is found, or it does not fit.
    pub(crate) async fn launch(
        &self,
        wanted: &ManagedServer,
    ) -> Result<(Launch, Option<Plan>), ControlError> {
        let path = wanted.model.clone().unwrap_or_default();
        let files = self.own_server.files();
        let model = blocking(move || Ok(files.one(&path))).await?;
        let program = self.program(wanted)?;
        let plan = match &model.header {
            // llama.cpp may know of more than is known here.
            Err(GgufError::NewWeights(_)) => None,
            _ => planned(usable(&model)?, wanted, &self.room().await).map_err(|error| no_fit(&error))?,
        };
        // Ollama's files have no names of their own.
        let alias = (model.source == Source::Ollama).then(|| name(&model));
        let launch = Launch {
            program,
            model: model.path,
            port: wanted.port,
            alias,
            context: plan.as_ref().map_or(wanted.context.unwrap_or(CONTEXT), |it| it.context),
            slots: plan.as_ref().map_or(wanted.slots.unwrap_or(SLOTS), |it| it.slots),
            gpu_layers: plan.as_ref().map_or(wanted.gpu_layers, |it| Some(it.gpu_layers)),
            cards: plan
                .as_ref()
                .filter(|_| !cfg!(target_os = "macos"))
                .map(|it| it.cards.iter().map(|card| (card.id.clone(), card.layers)).collect()),
        };
        Ok((launch, plan))
    }

    /// The memory that a model may take now; no room is known where a card does not tell of its own.
    async fn room(&self) -> Option<Room> {
        self.cards.read().await;
        let config = self.config();
        let ours = self.own_server.plan();
        let memory = tokio::task::spawn_blocking(Machine::look).await.ok().flatten();
        let ours_of_memory = ours.as_ref().map_or(0, |it| it.memory);
        let memory = memory.map(|it| it.available.saturating_add(ours_of_memory).saturating_sub(LEFT));
        if cfg!(target_os = "macos") {
            return Some(Room { cards: Vec::new(), memory, unified: true });
        }
        let cards = self.cards.latest();
        let ours_of = |id: &str| {
            let card = ours.iter().flat_map(|it| &it.cards).find(|it| it.id == id);
            card.map_or(0, |it| it.vram)
        };
        let room = cards.iter().filter(|it| config.settings().is_on(&it.id)).map(|it| {
            let others = it.vram_used?.saturating_sub(ours_of(&it.id));
            let kept = others.saturating_add(config.settings().reserve.of(&it.id));
            Some(CardRoom { id: it.id.clone(), allowed: it.vram_total?.saturating_sub(kept) })
        });
        let cards = room.collect::<Option<Vec<_>>>()?;
        Some(Room { cards, memory, unified: false })
    }

    /// The llama-server to start.
    fn program(&self, wanted: &ManagedServer) -> Result<PathBuf, ControlError> {
        wanted.program.clone().or_else(|| self.programs().into_iter().next()).ok_or_else(|| {
            ControlError::new(
                Code::ServerFailed,
                "No llama-server was found.",
                "It is the program that loads model files: without it none can be shared.",
                "Install llama.cpp (`brew install llama.cpp`, `winget install llama.cpp`), or name the program: \
                 `idlewatt config set managed.program PATH`.",
            )
        })
    }

    /// Every llama-server that is found.
    fn programs(&self) -> Vec<PathBuf> {
        programs(&user_home(), |name| std::env::var_os(name), &self.home.data.join("llama.cpp"))
    }

    /// For `doctor`: the llama-server that would be started, and what it printed last where something is wrong.
    pub(crate) async fn own_server_checks(&self, is_needed: bool) -> Vec<Check> {
        let check = |level, what, action| Check { area: "own server".to_owned(), level, what, action };
        let config = self.config();
        let settings = &config.settings().managed;
        let mut checks = Vec::new();
        let program = self.program(settings);
        match &program {
            Ok(path) => {
                let version = version(path).await.map_or_else(String::new, |it| format!(" {it}"));
                let what = format!("llama-server{version} at {}", path.display());
                checks.push(check(CheckLevel::Good, what, None));
            }
            Err(error) if settings.model.is_some() => {
                checks.push(check(CheckLevel::Problem, error.what.clone(), Some(error.action.clone())));
            }
            Err(_) => {}
        }
        let log = self.own_server.log();
        let says = self.own_server.running().is_none() && settings.model.is_some();
        let last = log.iter().rev().filter(|line| says && !line.is_empty()).take(PRINTED);
        let last: Vec<_> =
            last.map(|line| check(CheckLevel::Note, format!("It printed: {line}"), None)).collect();
        checks.extend(last.into_iter().rev());
        if is_needed && settings.model.is_none() && program.is_ok() {
            let models = self.models_on_disk(settings).await.unwrap_or_default();
            let usable = models.iter().filter(|it| it.header.is_ok()).count();
            if usable > 0 {
                let action = "`idlewatt models` lists them, `idlewatt models run ID` shares one.".to_owned();
                checks.push(check(
                    CheckLevel::Note,
                    format!("Model files on this machine: {usable}"),
                    Some(action),
                ));
            }
        }
        checks
    }
}

/// How a model is loaded; `None` where a card does not say what it has: then llama-server decides.
fn planned(header: &Header, wanted: &ManagedServer, room: &Option<Room>) -> Result<Option<Plan>, NoFit> {
    let chosen = Chosen { context: wanted.context, slots: wanted.slots, gpu_layers: wanted.gpu_layers };
    room.as_ref().map(|room| plan(header, chosen, room)).transpose()
}

fn view(model: &ModelOnDisk, wanted: &ManagedServer, room: &Option<Room>) -> ModelFile {
    let (plan, fits) = match &model.header {
        Err(GgufError::NewWeights(_)) => ("llama-server decides how it is loaded".to_owned(), true),
        Err(error) => (error.to_string(), false),
        Ok(header) => match planned(header, wanted, room) {
            Ok(Some(plan)) => (plan.to_string(), true),
            Ok(None) => ("llama-server decides how much of it goes onto the GPU".to_owned(), true),
            Err(error) => (error.to_string(), false),
        },
    };
    ModelFile {
        id: model.id.clone(),
        model: name(model),
        path: model.path.display().to_string(),
        source: model.source.name().to_owned(),
        size: model.size,
        context: model.header.as_ref().ok().and_then(|it| it.context),
        plan,
        fits,
        chosen: wanted.model.as_ref().is_some_and(|it| is_same(it, &model.path)),
    }
}

/// `llama3.2-3b:q4_k_m`, as an offer names it.
fn name(model: &ModelOnDisk) -> String {
    match &model.quantisation {
        Some(quantisation) => format!("{}:{quantisation}", model.model),
        None => model.model.clone(),
    }
}

fn named<'a>(models: &'a [ModelOnDisk], wanted: &str) -> Result<&'a ModelOnDisk, ControlError> {
    if let Some(exact) = models.iter().find(|it| it.id == wanted) {
        return Ok(exact);
    }
    let called: Vec<_> = models.iter().filter(|it| name(it) == wanted).collect();
    let like = || models.iter().filter(|it| it.id.contains(wanted) || name(it).contains(wanted)).collect();
    let found: Vec<_> = if called.is_empty() { like() } else { called };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(ControlError::new(
            Code::NotFound,
            format!("No model file here is called {wanted:?}."),
            "Nothing was changed.",
            "`idlewatt models` lists those that were found; `managed.folders` names more folders to look in.",
        )),
        several => Err(ControlError::new(
            Code::NotFound,
            format!("{} model files are called like {wanted:?}.", several.len()),
            "Nothing was changed.",
            "Name one by its id, the first column of `idlewatt models`.",
        )),
    }
}

/// The header of a model that writes text.
fn usable(model: &ModelOnDisk) -> Result<&Header, ControlError> {
    let why = match &model.header {
        Ok(header) if header.purpose == Purpose::Text => return Ok(header),
        Ok(_) => "it is no model that writes text".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(ControlError::new(
        Code::ServerFailed,
        format!("The model's file cannot be used: {why}."),
        format!("Your own model server does not start with {}.", model.path.display()),
        "Download it again as GGUF, or choose another: `idlewatt models` lists them.",
    ))
}

fn no_fit(error: &NoFit) -> ControlError {
    ControlError::new(
        Code::ServerFailed,
        format!("The model {error}."),
        "Your own model server does not start. What other programs hold, and what `gpus.reserve` keeps, counts.",
        "Choose a smaller model or quantisation: `idlewatt models` says what fits.",
    )
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn user_home() -> PathBuf {
    directories::BaseDirs::new().map(|it| it.home_dir().to_owned()).unwrap_or_default()
}
