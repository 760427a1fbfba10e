//! The governor on simulated cards: sharing stays under its cap, and uses it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod plant;

use plant::{CardPlan, Fault, Plant, ServicePlan, card, machine, settings};

#[test]
fn look() {
    for (lag, averaged) in [(0.0, false), (0.1, false), (1.0, false), (0.0, true)] {
        for (settable, stoppable) in [(true, false), (false, true), (false, false)] {
            let mut plan = CardPlan { settable, averaged, ..CardPlan::default() };
            plan.sensing.lag_s = lag;
            let mut plant = Plant::new(
                1,
                settings(),
                vec![plan],
                vec![ServicePlan { stoppable, ..ServicePlan::default() }],
            );
            plant.run_to(120.0);
            eprintln!(
                "lag {lag} averaged {averaged} settable {settable} stoppable {stoppable}: worst {:.3} used {:.3} cuts {} stops {} decisions {}",
                plant.worst(5.0, card(0)),
                plant.part_used(15.0, card(0)),
                plant.count(|it| matches!(it, idlewatt_core::governor::Effect::Cut { .. })),
                plant.count(|it| matches!(it, idlewatt_core::governor::Effect::Stop { .. })),
                plant.decisions,
            );
        }
    }
    let _ = (Fault::Zero, machine);
}
