//! Times as RFC 3339 has them, in UTC.

use pyrt_container::sys;

const NANOSECONDS: u64 = 1_000_000_000;

/// Now, to the nanosecond.
pub fn now() -> String {
    format(sys::realtime())
}

fn format(time: u64) -> String {
    let (seconds, nanos) = (time / NANOSECONDS, time % NANOSECONDS);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days as i64);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The civil date of a day since 1970, counted in eras of 400 years that begin in March, so that the leap day is last.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(format(951_782_400 * NANOSECONDS), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(format(1_709_251_199 * NANOSECONDS + 5), "2024-02-29T23:59:59.000000005Z");
        assert_eq!(format(4_102_444_800 * NANOSECONDS), "2100-01-01T00:00:00.000000000Z");
    }
}
