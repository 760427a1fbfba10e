use proptest::prelude::*;

use super::*;

const KWH: i64 = 3_600_000_000;

fn tariff(text: &str) -> Tariff {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn berlin(local: &str) -> Timestamp {
    if local.ends_with('Z') {
        return local.parse().unwrap();
    }
    local.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone("Europe/Berlin")).unwrap().timestamp()
}

/// Hundredths of the main unit that a kilowatt-hour costs in Berlin at each of these moments.
fn cents(text: &str, moments: &[&str]) -> Vec<i64> {
    let rate = |at: &&str| tariff(text).rate(berlin(at), &zone("Europe/Berlin")).unwrap();
    moments.iter().map(|at| rate(at).price.micros / 10_000).collect()
}

fn micros_of(text: &str, mj: i64, from: &str, until: &str) -> i64 {
    let (from, until) = (berlin(from), berlin(until));
    tariff(text).cost(Millijoules(mj), from, until, &zone("Europe/Berlin")).unwrap().money().micros
}

const EVENINGS: &str = "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 0.25";

// 2026-11-21 is a Saturday.

#[test]
fn a_kilowatt_hour_costs_its_price() {
    let at = berlin("2026-11-21T12:00");
    let rate = tariff("0.31 EUR/kWh").rate(at, &TimeZone::UTC).unwrap();
    assert_eq!(rate.cost(Millijoules(KWH)).money().micros, 310_000);
    // 250 W for 8 hours.
    assert_eq!(rate.cost(Millijoules(250 * 8 * 3_600_000)).money().to_string(), "0.62 EUR");
    // 5 W for a second: less than half a millionth, and kept all the same.
    assert_eq!(rate.cost(Millijoules(5_000)).nanos, 431);
    assert_eq!(rate.cost(Millijoules(i64::MAX)).nanos, 794_234_814_284_716_806);
}

#[test]
fn a_band_holds_on_its_days_and_over_midnight_and_of_two_the_first() {
    let times = [
        "2026-11-20T21:59", // Friday
        "2026-11-20T22:00",
        "2026-11-21T05:59", // still Friday's night, before the weekend in the list
        "2026-11-21T06:00",
        "2026-11-22T23:59",
        "2026-11-23T00:00", // Monday morning belongs to no Sunday night
        "2026-11-23T23:00",
    ];
    assert_eq!(cents(EVENINGS, &times), [31, 22, 22, 25, 25, 31, 22]);
}

/// On 2026-03-29 the clocks in Berlin go from 02:00 to 03:00.
#[test]
fn a_band_that_ends_in_an_hour_that_does_not_exist_ends_with_the_change() {
    let text = "0.31 EUR/kWh; 00:00-02:30 0.20; 02:30-06:00 0.10";
    let times = ["2026-03-29T01:59", "2026-03-29T03:00", "2026-03-29T05:59", "2026-03-29T06:00"];
    assert_eq!(cents(text, &times), [20, 10, 10, 31]);
    // Four hours of the clock are three of the meter: 2 h at 20 and 3 h at 10, 1 kW.
    assert_eq!(micros_of(text, 5 * KWH, "2026-03-29T00:00", "2026-03-29T06:00"), 2 * 200_000 + 3 * 100_000);
    // A band that lies wholly in the missing hour never holds.
    assert_eq!(cents("0.31 EUR/kWh; 02:10-02:50 0.10", &["2026-03-29T01:59", "2026-03-29T03:00"]), [31, 31]);
}

/// On 2026-10-25 the clocks in Berlin go from 03:00 back to 02:00.
#[test]
fn an_hour_that_comes_twice_is_cheap_twice_in_a_band_that_covers_it() {
    let night = "0.31 EUR/kWh; 22:00-06:00 0.20";
    // 8 hours of the clock are 9 of the meter.
    assert_eq!(micros_of(night, 9 * KWH, "2026-10-24T22:00", "2026-10-25T06:00"), 9 * 200_000);
    // A change within it happens at its first coming.
    let (first, second) = ("2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z"); // both 02:15
    assert_eq!(cents("0.31 EUR/kWh; 00:00-02:30 0.20", &[first, second]), [20, 31]);
    assert_eq!(cents("0.31 EUR/kWh; 02:30-06:00 0.20", &[first, second]), [31, 20]);
}

#[test]
fn energy_over_a_change_of_the_price_is_split_at_the_moment() {
    // An hour of 1 kW, a quarter of it before ten in the evening.
    let micros = micros_of(EVENINGS, KWH, "2026-11-20T21:45", "2026-11-20T22:45");
    assert_eq!(micros, 310_000 / 4 + 220_000 * 3 / 4);
    // Nothing to spread: what holds then.
    assert_eq!(micros_of(EVENINGS, KWH, "2026-11-20T22:00", "2026-11-20T22:00"), 220_000);
    // A clock that was set back in between: what held at the beginning.
    assert_eq!(micros_of(EVENINGS, KWH, "2026-11-20T21:00", "2026-11-20T20:00"), 310_000);
    // A whole week of 1 kW: 5 nights of 8 hours, the weekend less Friday's six, the rest.
    let hours = |count: i64, cents: i64| count * cents * 10_000;
    assert_eq!(
        micros_of(EVENINGS, 168 * KWH, "2026-11-16T06:00", "2026-11-23T06:00"),
        hours(40, 22) + hours(42, 25) + hours(86, 31)
    );
}

#[test]
fn a_price_may_be_negative() {
    let text = "-0.05 EUR/kWh; Sat-Sun 12:00-14:00 -0.2";
    assert_eq!(cents(text, &["2026-11-20T13:00", "2026-11-21T13:00"]), [-5, -20]);
    assert_eq!(micros_of(text, KWH, "2026-11-21T13:00", "2026-11-21T13:30"), -200_000);
    assert_eq!(tariff(text).to_string(), "-0.05 EUR/kWh; Sat-Sun 12:00-14:00 -0.20");
    assert_eq!(tariff("−1.5 EUR/kWh").to_string(), "-1.50 EUR/kWh");
    assert_eq!((Money { micros: 1, currency: Currency(*b"EUR") }).to_string(), "0.000001 EUR");
}

#[test]
fn a_tariff_reads_back_what_it_writes() {
    for (text, written) in [
        ("0.31 EUR/kWh", "0.31 EUR/kWh"),
        (" 0.3 CHF /kWh ;sat 0.25", "0.30 CHF/kWh; Sat 00:00-24:00 0.25"),
        (EVENINGS, "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 00:00-24:00 0.25"),
        (
            "3000 VND/kWh; 22:00-6:00, Sun 1940.5",
            "3000.00 VND/kWh; Mon-Sun 22:00-06:00, Sun 00:00-24:00 1940.50",
        ),
    ] {
        assert_eq!(tariff(text).to_string(), written);
        assert_eq!(tariff(written), tariff(text));
    }
}

#[test]
fn an_error_names_the_place_and_the_problem() {
    let errors: Vec<String> = [
        "",
        "0.31",
        "0.31 EUR",
        "0,31 EUR/kWh",
        "0.31 €/kWh",
        "0.31 eur/kWh",
        ". EUR/kWh",
        "0.1234567 EUR/kWh",
        "99999999 EUR/kWh",
        "0.31 EUR/kWh;",
        "0.31 EUR/kWh; Mon-Fri 22:00-06:00",
        "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0,22",
        "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22 EUR",
        "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Son 0.25",
        "0.31 EUR/kWh; always 0.22",
        "0.31 EUR/kWh; 0.22",
    ]
    .iter()
    .map(|text| format!("{text:?} {}", text.parse::<Tariff>().unwrap_err()))
    .collect();
    insta::assert_snapshot!(errors.join("\n"));
    assert!("99999999999999999999 EUR".parse::<CreditValue>().is_err());
    assert!("-1 EUR".parse::<CreditValue>().is_err());
}

#[test]
fn there_is_a_net_only_in_one_currency() {
    let value: CreditValue = "0.5 EUR".parse().unwrap();
    let gross = value.worth(MicroCredits(2_000_000));
    assert_eq!(gross.to_string(), "1.00 EUR");
    let cost = |currency: &str| Money { micros: 1_300_000, currency: Currency::read(currency).unwrap() };
    assert_eq!(gross.less(&cost("EUR")).unwrap().to_string(), "-0.30 EUR");
    assert_eq!(gross.less(&cost("USD")), None);
}

#[test]
fn tokens_are_profitable_while_they_earn_what_their_energy_costs() {
    let value: CreditValue = "0.31 EUR".parse().unwrap();
    let rate = |text: &str| tariff(text).rate(berlin("2026-11-21T12:00"), &TimeZone::UTC).unwrap();
    // A credit for a kilowatt-hour.
    let made = |text: &str| profitable(MicroCredits(1_000_000), Millijoules(KWH), &rate(text), &value);
    assert_eq!(made("0.31 EUR/kWh"), Some(true));
    assert_eq!(made("0.310001 EUR/kWh"), Some(false));
    assert_eq!(made("0.31 USD/kWh"), None);
    // Where energy is paid for being used, even nothing is enough.
    assert_eq!(profitable(MicroCredits::ZERO, Millijoules(KWH), &rate("-0.01 EUR/kWh"), &value), Some(true));
}

/// Prices of which the last hours are not known yet.
struct Known(Timestamp);

impl Prices for Known {
    fn rate(&self, at: Timestamp, zone: &TimeZone) -> Option<Rate> {
        let rate = tariff("1 EUR/kWh").rate(at, zone)?;
        (at < self.0).then_some(Rate { until: self.0, ..rate })
    }
}

#[test]
fn what_has_no_price_for_a_part_of_it_has_no_cost() {
    let prices = Known(berlin("2026-11-21T12:00"));
    let cost = |until: &str| {
        prices.cost(Millijoules(KWH), berlin("2026-11-21T11:00"), berlin(until), &TimeZone::UTC)
    };
    assert_eq!(cost("2026-11-21T12:00").unwrap().nanos, 1_000_000_000);
    assert_eq!(cost("2026-11-21T12:01"), None);
}

proptest! {
    /// Over any stretch, changes of the clocks and negative prices included, a cost is what its minutes cost one by one.
    #[test]
    fn the_cost_of_a_stretch_is_that_of_its_minutes(
        start in 0..366 * 24 * 60_i64,
        minutes in 1..1_500_i64,
        place in 0..3_usize,
        from in 0..24_i64,
        to in 0..24_i64,
        price in -50..90_i64,
    ) {
        prop_assume!(from != to);
        let zone = zone(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][place]);
        let tariff = tariff(&format!("0.30 EUR/kWh; Mon-Thu {from:02}:30-{to:02}:30 {}", Decimal(price * 10_000)));
        let minute = |count: i64| Timestamp::from_second(1_767_225_600 + 60 * count).unwrap();
        // A joule a minute and a price in hundredths: nothing is rounded but the sum.
        let each: i64 = (start..start + minutes)
            .map(|at| tariff.rate(minute(at), &zone).unwrap().price.micros)
            .sum();
        let expected = rounded(i128::from(each) * 1_000_000, MILLIJOULES_A_KWH);
        let whole = tariff.cost(Millijoules(1_000 * minutes), minute(start), minute(start + minutes), &zone).unwrap();
        prop_assert!((whole.nanos - expected).abs() <= 8, "{} is not {expected}", whole.nanos);
    }
}
