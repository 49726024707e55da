package main

import (
	"math/rand"
	"strconv"
	"strings"
	"time"
)

// Zones with all kinds of jumps, but none that skips a whole day within the times asked for: Go
// does not return from such a search.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe",
	"Asia/Kolkata", "Africa/Cairo", "Asia/Beirut", "Asia/Amman", "Asia/Tehran", "Asia/Gaza",
	"America/Asuncion", "America/Havana", "America/Santiago", "America/St_Johns",
	"America/Scoresbysund", "Atlantic/Azores", "Europe/London", "Europe/Dublin", "Europe/Moscow",
	"Africa/Casablanca", "Antarctica/Troll", "Antarctica/Casey", "Asia/Pyongyang",
	"America/Caracas", "Asia/Kathmandu", "Australia/Sydney", "Pacific/Chatham", "Pacific/Easter",
	"Africa/Monrovia", "Asia/Damascus", "America/Godthab", "Pacific/Fiji", "Asia/Singapore",
}

func randomQuestions(r *rand.Rand, n int) []question {
	questions := make([]question, n)
	for i := range questions {
		zone := zones[r.Intn(len(zones))]
		questions[i] = question{randomSpec(r), zone, randomTime(r, zone), 4}
	}
	return questions
}

// randomTime is near a jump of the clock half of the time.
func randomTime(r *rand.Rand, zone string) time.Time {
	const first, last = 0, 4_000_000_000 // 1970 to 2096
	at := time.Unix(first+r.Int63n(last-first), r.Int63n(2)*r.Int63n(1_000_000_000)).UTC()
	if r.Intn(2) == 0 {
		return at
	}
	if _, end := at.In(mustLoad(zone)).ZoneBounds(); !end.IsZero() && end.Unix() < last {
		hours := []int64{1, 3, 30, 800}[r.Intn(4)]
		before := time.Duration(r.Int63n(4*hours*3600)-3*hours*3600) * time.Second
		return end.Add(before).UTC()
	}
	return at
}

func randomSpec(r *rand.Rand) string {
	if r.Intn(12) == 0 {
		return pick(r, "", "", "TZ=Asia/Tokyo ", "CRON_TZ=America/Chicago ") + randomDescriptor(r)
	}
	spec := strings.Join([]string{
		randomField(r, 0, 59, "", 3),
		randomField(r, 0, 23, "", 3),
		randomField(r, 1, 31, "", 5),
		randomField(r, 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec", 6),
		randomField(r, 0, 6, "sun mon tue wed thu fri sat", 5),
	}, " ")
	if r.Intn(15) == 0 {
		spec = pick(r, "TZ=Europe/Paris ", "CRON_TZ=Pacific/Auckland ", "TZ=Local ", "TZ=UTC  ") + spec
	}
	if r.Intn(6) == 0 {
		return damage(r, spec)
	}
	return spec
}

// randomField is a star in stars of ten cases.
func randomField(r *rand.Rand, min, max int, names string, stars int) string {
	if r.Intn(10) < stars {
		return pick(r, "*", "*", "*", "?", "*/1")
	}
	elements := make([]string, 1+r.Intn(2)*r.Intn(3))
	for i := range elements {
		elements[i] = randomElement(r, min, max, strings.Fields(names))
	}
	return strings.Join(elements, ",")
}

func randomElement(r *rand.Rand, min, max int, names []string) string {
	low := min + r.Intn(max-min+1)
	high := low + r.Intn(max-low+1)
	value := func(n int) string {
		if len(names) > 0 && r.Intn(3) == 0 {
			return pick(r, names[n-min], strings.ToUpper(names[n-min]))
		}
		return strconv.Itoa(n)
	}
	step := strconv.Itoa(1 + r.Intn(max))
	switch r.Intn(9) {
	case 0:
		return "*/" + step
	case 1:
		return value(low) + "/" + step
	case 2:
		return value(low) + "-" + value(high) + "/" + step
	case 3, 4:
		return value(low) + "-" + value(high)
	default:
		return value(low)
	}
}

func randomDescriptor(r *rand.Rand) string {
	if r.Intn(2) == 0 {
		return pick(r, "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
	}
	var duration strings.Builder
	for i := 1 + r.Intn(3); i > 0; i-- {
		duration.WriteString(strconv.Itoa(r.Intn(100)))
		if r.Intn(2) == 0 {
			duration.WriteString("." + strconv.FormatInt(r.Int63n(1<<uint(1+r.Intn(60))), 10))
		}
		duration.WriteString(pick(r, "h", "m", "s", "ms", "us", "µs", "ns", "s", "m", "d", ""))
	}
	return "@every " + duration.String()
}

func damage(r *rand.Rand, spec string) string {
	const alphabet = "0123456789*?/-,+ \tajnsuTZ=@Lx#"
	letters := []byte(spec)
	for i := 1 + r.Intn(2); i > 0; i-- {
		at := r.Intn(len(letters))
		letter := alphabet[r.Intn(len(alphabet))]
		switch r.Intn(3) {
		case 0:
			letters[at] = letter
		case 1:
			letters = append(letters[:at], letters[at+1:]...)
		default:
			letters = append(letters[:at], append([]byte{letter}, letters[at:]...)...)
		}
	}
	return string(letters)
}

func pick(r *rand.Rand, choices ...string) string {
	return choices[r.Intn(len(choices))]
}
