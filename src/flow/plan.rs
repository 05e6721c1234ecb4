//! **plan**: facts about a source become a plan, and the plan becomes tasks.
//!
//! Called by `collect` when a probe reports. What will be made is `reelyard-planner`'s decision, a pure function; this
//! file turns it into rows: renditions, one encode task for each chunk, one task for sound, one for stills, and the
//! publish task that waits for all of them.
//!
//! A video without its preview pictures or its sound still plays, so those tasks are not required: when one is given
//! up, the asset gets a warning and is published without it. Sound is required where there is nothing else.

use crate::app::App;
use reelyard_catalog::{NewRendition, NewTask};
use reelyard_model::{Failure, FailureCode, MediaInfo, Plan, TaskId, work::TaskKind};
use reelyard_planner::Policy;
use uuid::Uuid;

/// Publishing first: an asset that is done should not wait behind another that has just begun.
const PUBLISH_PRIORITY: i32 = 40;
/// All media work alike, so that the oldest asset is finished first instead of all of them at once. Within an asset
/// the order of making counts: sound and stills, which are short and shown early, before the chunks in their order.
const MEDIA_PRIORITY: i32 = 10;

/// What comes of a probe.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) tasks: Vec<NewTask>,
    pub(crate) renditions: Vec<NewRendition>,
}

pub(crate) fn plan(app: &App, preset: &str, info: &MediaInfo) -> Result<Planned, Failure> {
    let Some(preset) = app.presets.get(preset) else {
        // It was there when the upload was announced: somebody removed it and started the server anew.
        return Err(Failure::new(
            FailureCode::Internal,
            format!(
                "preset {preset:?} is not among this server's presets any more; put it back and retry the asset"
            ),
        ));
    };
    let plan = reelyard_planner::plan(info, preset, &Policy::default())?;
    let tasks = tasks(&plan);
    let renditions = renditions(&plan);
    Ok(Planned { plan, tasks, renditions })
}

fn tasks(plan: &Plan) -> Vec<NewTask> {
    let task = |kind, ordinal, required, priority| NewTask {
        // Version 7 ids of one process rise, so they are claimed and listed in this order.
        id: TaskId::from_uuid(Uuid::now_v7()),
        kind,
        ordinal,
        required,
        priority,
        needs: Vec::new(),
    };
    let mut tasks = Vec::new();
    if plan.audio.is_some() {
        tasks.push(task(TaskKind::Audio, 0, plan.video.is_none(), MEDIA_PRIORITY));
    }
    if plan.stills.is_some() {
        tasks.push(task(TaskKind::Stills, 0, false, MEDIA_PRIORITY));
    }
    for chunk in plan.video.iter().flat_map(|video| &video.chunks) {
        tasks.push(task(TaskKind::Encode, chunk.index, true, MEDIA_PRIORITY));
    }
    let mut publish = task(TaskKind::Publish, 0, true, PUBLISH_PRIORITY);
    publish.needs = tasks.iter().map(|task| task.id).collect();
    tasks.push(publish);
    tasks
}

fn renditions(plan: &Plan) -> Vec<NewRendition> {
    let rungs = plan.video.iter().flat_map(|video| &video.rungs).map(|rung| NewRendition {
        name: rung.name.clone(),
        kind: "video",
        width: Some(rung.width),
        height: Some(rung.height),
        max_bit_rate: rung.max_bit_rate,
    });
    let sound = plan.audio.iter().map(|audio| NewRendition {
        name: AUDIO_RENDITION.to_owned(),
        kind: "audio",
        width: None,
        height: None,
        max_bit_rate: audio.bit_rate,
    });
    rungs.chain(sound).collect()
}

/// What the media child calls the sound (`reelyard_model::output::TrackOutput::rendition`).
const AUDIO_RENDITION: &str = "audio";
