//! Routes about alerts.

use super::may;
use crate::accounts::Action::{Create, Delete, Execute, Read, Update};
use crate::accounts::Resource;
use crate::alerts::Silence;
use crate::api::alerts::{self, AlertList, Comment, NewSilence, OneAlert, SilenceList, Trial, Wanted};
use crate::api::route::Route;

pub(super) fn alerts() -> Vec<Route> {
    use Resource::Alerts;
    vec![
        Route::get(
            "/alerts",
            may(Alerts, Read),
            "Lists alerts of the whole cluster, those that fire first",
            alerts::list,
        )
        .query::<Wanted>()
        .gives::<AlertList>()
        .narrowed(),
        Route::post(
            "/alerts/{id}/ack",
            may(Alerts, Update),
            "Says that somebody looks at an alert: receivers are not told of it again until it is over",
            alerts::acknowledge,
        )
        .takes::<Comment>()
        .gives::<OneAlert>()
        .narrowed(),
        Route::delete(
            "/alerts/{id}/ack",
            may(Alerts, Update),
            "Takes back that somebody looks at an alert",
            alerts::take_back,
        )
        .gives::<OneAlert>()
        .narrowed(),
        Route::get(
            "/alerts/silences",
            may(Alerts, Read),
            "Lists silences",
            alerts::silences,
        )
        .gives::<SilenceList>(),
        Route::post(
            "/alerts/silences",
            may(Alerts, Create),
            "Keeps receivers from being told of what matches, for a while",
            alerts::silence,
        )
        .takes::<NewSilence>()
        .gives::<Silence>()
        .status(201),
        Route::delete(
            "/alerts/silences/{id}",
            may(Alerts, Delete),
            "Ends a silence",
            alerts::end_silence,
        )
        .gives::<Silence>(),
        Route::post(
            "/alerts/receivers/{name}/test",
            may(Alerts, Execute),
            "Sends a receiver a message that only shows that messages arrive",
            alerts::try_receiver,
        )
        .gives::<Trial>(),
    ]
}
