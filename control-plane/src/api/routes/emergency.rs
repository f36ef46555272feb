//! Routes for emergencies.

use super::may;
use crate::accounts::Action::{Execute, Read};
use crate::accounts::Resource::{Emergency, Limits};
use crate::api::emergency::{self, Block, Maintenance, Reason, Reset, TopUp};
use crate::api::resources::Written;
use crate::api::route::Route;

pub(super) fn emergency() -> Vec<Route> {
    vec![
        Route::get(
            "/emergency",
            may(Limits, Read),
            "Says whether all requests are refused",
            emergency::state,
        )
        .gives::<emergency::EmergencyState>()
        .harmless(),
        Route::post(
            "/emergency/channels/{id}/block",
            may(Emergency, Execute),
            "Refuses all requests of a channel; ends what it is being served if wanted",
            emergency::block,
        )
        .takes::<Block>()
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/unblock",
            may(Emergency, Execute),
            "Serves a channel again",
            emergency::unblock,
        )
        .takes::<Reason>()
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/end-streams",
            may(Emergency, Execute),
            "Ends what a channel is being served",
            emergency::end_streams,
        )
        .takes::<Reason>()
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/limits/reset",
            may(Emergency, Execute),
            "Forgets what a channel has used of a limit",
            emergency::reset_of_channel,
        )
        .takes::<Reset>()
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/limits/top-up",
            may(Emergency, Execute),
            "Gives a channel more of a limit for a while",
            emergency::top_up_of_channel,
        )
        .takes::<TopUp>()
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/models/{id}/limits/reset",
            may(Emergency, Execute),
            "Forgets what was used of a model's limit",
            emergency::reset_of_model,
        )
        .takes::<Reset>()
        .gives::<Written>(),
        Route::post(
            "/emergency/models/{id}/limits/top-up",
            may(Emergency, Execute),
            "Gives a model more of a limit for a while",
            emergency::top_up_of_model,
        )
        .takes::<TopUp>()
        .gives::<Written>(),
        Route::post(
            "/emergency/limits/reset",
            may(Emergency, Execute),
            "Forgets what was used of a limit over everything",
            emergency::reset_of_all,
        )
        .takes::<Reset>()
        .gives::<Written>(),
        Route::post(
            "/emergency/limits/top-up",
            may(Emergency, Execute),
            "Gives everything more of a limit for a while",
            emergency::top_up_of_all,
        )
        .takes::<TopUp>()
        .gives::<Written>(),
        Route::post(
            "/emergency/end-streams",
            may(Emergency, Execute),
            "Ends what anybody is being served",
            emergency::end_all_streams,
        )
        .takes::<Reason>()
        .gives::<Written>(),
        Route::post(
            "/emergency/maintenance",
            may(Emergency, Execute),
            "Refuses all requests, or serves them again",
            emergency::maintenance,
        )
        .takes::<Maintenance>()
        .gives::<Written>(),
    ]
}
