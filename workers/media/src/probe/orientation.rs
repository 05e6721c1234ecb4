//! From a track's display matrix (ISO/IEC 14496-12 section 8.3.2) to mirror and quarter turns. Pure.

use reelyard_model::media_info::Orientation;

/// Degrees off a quarter turn that are still taken for rounding.
const TOLERANCE_DEGREES: f64 = 1.0;

/// The nearest orientation that can be made without resampling, and whether it is exactly what the matrix says.
pub(crate) fn from_matrix(matrix: &[i32; 9]) -> (Orientation, bool) {
    // A point (x, y), y downwards, goes to (a x + c y, b x + d y).
    let [a, b, _, c, d, ..] = matrix.map(f64::from);
    let determinant = a * d - b * c;
    if determinant == 0.0 || !determinant.is_finite() {
        return (Orientation::default(), false);
    }
    let mirrored = determinant < 0.0;
    // Mirroring first means that the x axis arrives turned round.
    let (x, y) = if mirrored { (-a, -b) } else { (a, b) };
    let clockwise_degrees = y.atan2(x).to_degrees();
    let quarters = (clockwise_degrees / 90.0).round();
    let exact = (clockwise_degrees - quarters * 90.0).abs() <= TOLERANCE_DEGREES;
    let quarter_turns_clockwise = (quarters as i64).rem_euclid(4) as u8;
    (Orientation { mirrored, quarter_turns_clockwise }, exact)
}

#[cfg(test)]
mod tests {
    use super::from_matrix;

    const ONE: i32 = 1 << 16;

    fn turns(a: i32, b: i32, c: i32, d: i32) -> (bool, u8, bool) {
        let (orientation, exact) = from_matrix(&[a, b, 0, c, d, 0, 0, 0, 1 << 30]);
        (orientation.mirrored, orientation.quarter_turns_clockwise, exact)
    }

    #[test]
    fn the_matrices_that_phones_write() {
        assert_eq!(turns(ONE, 0, 0, ONE), (false, 0, true));
        assert_eq!(turns(0, ONE, -ONE, 0), (false, 1, true));
        assert_eq!(turns(-ONE, 0, 0, -ONE), (false, 2, true));
        assert_eq!(turns(0, -ONE, ONE, 0), (false, 3, true));
    }

    #[test]
    fn mirrors_are_seen_though_the_angle_hides_them() {
        assert_eq!(turns(-ONE, 0, 0, ONE), (true, 0, true));
        assert_eq!(turns(ONE, 0, 0, -ONE), (true, 2, true));
        // Mirrored left-right, then a quarter turn clockwise: x goes to -y.
        assert_eq!(turns(0, -ONE, -ONE, 0), (true, 1, true));
    }

    #[test]
    fn odd_angles_and_broken_matrices_are_rounded_and_said() {
        let (cosine, sine) = (47_142, -45_526); // -44 degrees
        assert_eq!(turns(cosine, sine, -sine, cosine), (false, 0, false));
        assert_eq!(turns(0, 0, 0, 0), (false, 0, false));
    }
}
