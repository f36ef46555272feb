//! Routes about the running gateway.

use super::may;
use crate::accounts::Action::{Execute, Read};
use crate::accounts::Resource;
use crate::api::route::Route;
use crate::api::{
    deployments, experiments, explain, inflight, instance, instances, latency, limits, live, members,
    requests, series, shadow, tokenizers, usage,
};

pub(super) fn running() -> Vec<Route> {
    use Resource::{
        CountingRules, Deployments, Emergency, Explain, Instance, Limits, Requests, Rules, Usage,
    };
    vec![
        Route::get(
            "/usage",
            may(Usage, Read),
            "Reads usage per channel and model",
            usage::read,
        )
        .query::<usage::Wanted>()
        .gives::<usage::Answer>()
        .narrowed(),
        Route::get(
            "/limits",
            may(Limits, Read),
            "Says how full the limits of all channels are",
            limits::all,
        )
        .query::<limits::Page>()
        .gives::<limits::AllLimits>()
        .narrowed(),
        Route::get(
            "/instance",
            may(Instance, Read),
            "Says how this instance is",
            instance::read,
        )
        .gives::<instance::Instance>(),
        Route::get(
            "/instances",
            may(Instance, Read),
            "Lists the instances of the cluster, and whether they agree",
            instances::list,
        )
        .gives::<instances::Cluster>(),
        Route::get(
            "/instances/{id}/configuration",
            may(Instance, Read),
            "Says what a new instance of that name needs; no secrets",
            members::configuration,
        )
        .query::<members::Place>()
        .gives::<members::Joining>(),
        Route::patch(
            "/instances/{id}",
            may(Emergency, Execute),
            "Sets an instance's weight, or takes it out and in again",
            members::change,
        )
        .takes::<members::Wanted>()
        .gives::<members::Own>(),
        Route::delete(
            "/instances/{id}",
            may(Emergency, Execute),
            "Takes away what an instance that is gone had of its own",
            members::remove,
        )
        .gives::<members::Own>(),
        Route::get(
            "/drain",
            may(Instance, Read),
            "Says whether this instance is drained",
            instances::draining,
        )
        .gives::<instances::Draining>(),
        Route::put(
            "/drain",
            may(Emergency, Execute),
            "Takes this instance out of the cluster's view; what runs ends by itself",
            instances::drain,
        )
        .gives::<instances::Draining>(),
        Route::delete(
            "/drain",
            may(Emergency, Execute),
            "Takes clients again",
            instances::undrain,
        )
        .gives::<instances::Draining>(),
        Route::get(
            "/experiments",
            may(Usage, Read),
            "Lists experiments and their groups",
            experiments::all,
        )
        .gives::<experiments::ExperimentList>(),
        Route::get(
            "/experiments/{name}",
            may(Usage, Read),
            "Reads what came of each group of an experiment",
            experiments::one,
        )
        .query::<experiments::Wanted>()
        .gives::<experiments::Outcome>(),
        Route::get(
            "/rules/{id}/shadow",
            may(Rules, Read),
            "Says what a rule in shadow mode would have done",
            shadow::read,
        )
        .query::<shadow::Wanted>()
        .gives::<shadow::Answer>()
        .narrowed(),
        Route::get(
            "/deployments",
            may(Deployments, Read),
            "Lists deployments as they stand",
            deployments::all,
        )
        .query::<deployments::Wanted>()
        .gives::<deployments::DeploymentList>()
        .harmless(),
        Route::get(
            "/deployments/{*id}",
            may(Deployments, Read),
            "Says how a deployment stands",
            deployments::one,
        )
        .gives::<deployments::OneDeployment>()
        .harmless(),
        Route::get(
            "/inflight",
            may(Requests, Read),
            "Lists requests being served now",
            inflight::read,
        )
        .query::<inflight::Wanted>()
        .gives::<inflight::InFlightList>()
        .narrowed(),
        Route::get(
            "/requests",
            may(Requests, Read),
            "Lists requests of the past, newest first",
            requests::read,
        )
        .query::<requests::Wanted>()
        .gives::<requests::RequestPage>()
        .narrowed(),
        Route::get(
            "/requests/{number}",
            may(Requests, Read),
            "Reads one request of the past",
            requests::one,
        )
        .gives::<requests::RequestLine>()
        .narrowed(),
        Route::get(
            "/usage/series",
            may(Usage, Read),
            "Reads usage over time, for charts",
            series::read,
        )
        .query::<series::Wanted>()
        .gives::<series::Answer>()
        .narrowed(),
        Route::get(
            "/latency",
            may(Usage, Read),
            "Reads how long requests took, as histograms",
            latency::read,
        )
        .query::<latency::Wanted>()
        .gives::<latency::Answer>()
        .narrowed(),
        Route::get(
            "/live",
            may(Usage, Read),
            "Follows what the gateway does: `sample` (LiveSample) once a second, `alerts` (AlertCounts) when alerts change",
            live::read,
        )
        .query::<live::Wanted>()
        .gives_events::<live::Sample>()
        .narrowed(),
        Route::get(
            "/tokenizers",
            may(CountingRules, Read),
            "Lists tokenizers, and how models are counted",
            tokenizers::list,
        )
        .gives::<tokenizers::TokenizerList>()
        .harmless(),
        Route::post(
            "/tokenizers/{name}/count",
            may(CountingRules, Read),
            "Counts a text or a request",
            tokenizers::count_one,
        )
        .takes::<tokenizers::CountRequest>()
        .gives::<tokenizers::CountAnswer>()
        .up_to(64 << 20)
        .harmless(),
        Route::post(
            "/explain",
            may(Explain, Read),
            "Says what would become of a request, and why",
            explain::answer,
        )
        .takes::<crate::explain::ExplainRequest>()
        .gives::<explain::Explained>()
        .up_to(64 << 20),
    ]
}
