package main

import "strings"

// table is the fixed part: what a spec means, what is no spec, and what clocks do that jump.
func table() []question {
	var questions []question
	for _, spec := range append(lines(goodSpecs), oddSpecs...) {
		questions = append(questions, question{spec, "UTC", mustParse("2026-11-24T13:37:42.125Z"), 3})
	}
	for _, spec := range append(lines(badSpecs), oddBadSpecs...) {
		questions = append(questions, question{spec, "UTC", mustParse("2026-11-24T13:37:42Z"), 1})
	}
	for _, line := range lines(clockChanges) {
		parts := strings.SplitN(line, " ", 3)
		questions = append(questions, question{parts[2], parts[0], mustParse(parts[1]), 5})
	}
	return questions
}

func lines(text string) []string {
	return strings.Split(strings.TrimSpace(text), "\n")
}

const goodSpecs = `
* * * * *
? ? ? ? ?
? * * * ?
0 * * * *
59 * * * *
0 0 * * *
59 23 31 12 6
5 4 * * *
*/1 * * * *
*/2 * * * *
*/7 * * * *
*/15 * * * *
*/59 * * * *
*/60 * * * *
*/1000000 * * * *
*/9223372036854775807 * * * *
5/15 * * * *
0/20 * * * *
59/5 * * * *
10-20 * * * *
10-40/10 * * * *
10-10 * * * *
10-10/3 * * * *
0-59 * * * *
0-59/59 * * * *
1,2,3 * * * *
1,1,1 * * * *
50-59,0-5 * * * *
0,15-20,30/10,58 * * * *
*,5 * * * *
00 * * * *
007 * * * *
+5 * * * *
0-+5 * * * *
*/+5 * * * *
0 */3 * * *
0 1/6 * * *
0 9-17 * * *
0 9-17/4 * * *
0 0,12 * * *
0 23/1 * * *
0 0 1 * *
0 0 31 * *
0 0 30 2 *
0 0 31 2,4,6,9,11 *
0 0 29 2 *
0 0 */2 * *
0 0 */10 * *
0 0 1/10 * *
0 0 10-20 * *
0 0 1,15 * *
0 0 ? * *
0 0 13 * 5
0 0 13 * fri
0 0 */10 * 1
0 0 */1 * 1
0 0 */31 * 1
0 0 1 * */2
0 0 1 * */1
0 0 1 * */7
0 0 ? * 1
0 0 1 * ?
0 0 *,1 * 1
0 0 1 * *,1
0 0 1 * *,*/2
0 0 1-31 * 1
0 0 1 * 0-6
0 0 1-31/1 * 1
0 0 * 1 *
0 0 * jan *
0 0 * JAN *
0 0 * Jan *
0 0 * jAn-mAr *
0 0 * jan,JUL,dec *
0 0 * feb/3 *
0 0 * feb-nov/4 *
0 0 * 1-jun *
0 0 * jan-6 *
0 0 1 */3 *
0 0 1 */12 *
0 0 1 12 *
0 0 29 feb *
0 0 29 feb mon
0 0 30 feb mon
0 0 31 apr ?
0 0 * * 0
0 0 * * 6
0 0 * * sun
0 0 * * SUN
0 0 * * mon-fri
0 0 * * MON-FRI
0 0 * * mon,wed,fri
0 0 * * sun-sat
0 0 * * mon/2
0 0 * * MON/2
0 0 * * 1/2
0 0 * * 1-5/2
0 0 * * sat/1
0 0 * * 0,6
0 0 1 1 0
0 0 1 1 *
*-5 * * * *
*-x-y * * * *
?-/2 * * * *
*-5/2 * * * *
0 0 *-5 * 1
1,,2 * * * *
,1 * * * *
1, * * * *
, * * * *
* , * * *
* * , * *
* * * , *
* * * * ,
* * , * 1
* * 1 * ,
* * , * ,
@yearly
@annually
@monthly
@weekly
@daily
@midnight
@hourly
@every 1s
@every 5m
@every 1h
@every 1h30m
@every 1h30m10s
@every 1.5h
@every .5h
@every 1.h
@every 0.0003h
@every 90s
@every 1m2.9s
@every 1.999999999s
@every 500ms
@every 1500ms
@every 2500000us
@every 2500000µs
@every 2500000μs
@every 3000000000ns
@every 1ns
@every 0
@every +0
@every -0
@every 0s
@every +5s
@every -5m
@every 24h
@every 8760h
@every 100000h
@every 1h1h
@every 1s1h
@every 0.5000000000000h
@every 0.3333333333333333333h
@every 0.99999999999999999999999s
@every 1.00000000000000000000000000000000001s
@every 0000000000000000000000000005s
@every 9223372036s
TZ=UTC * * * * *
TZ= 5 * * * *
TZ=Local 5 5 * * *
CRON_TZ=UTC 0 5 * * *
TZ=Europe/Berlin 30 2 * * *
CRON_TZ=Asia/Tokyo 0 9 * * mon
TZ=America/New_York @daily
TZ=America/New_York @hourly
CRON_TZ=Asia/Kolkata @weekly
TZ=Asia/Kolkata @every 90m
TZ=Etc/GMT+5 0 0 * * *
TZ=Asia/Kathmandu 0 0 * * *
TZ=EST 0 0 * * *
`

// What a raw string cannot show well.
var oddSpecs = []string{
	"TZ=Europe/Berlin     0 5 * * *    ",
	"TZ=Europe/Berlin @daily   ",
	" * * * * *",
	"* * * * * ",
	"  5   4  *  *  *  ",
	"5\t4\t*\t*\t*",
	"5\n4\r\n*\v*\f*",
	"5\u00a04\u2003*\u3000*\u0085*",
	"0 0 * * FR\u0130",
	"TZ=UTC \t 0 5 * * *\n",
	"TZ=UTC @every 5m\u00a0",
}

const badSpecs = `
*
* *
* * *
* * * *
* * * * * *
0 0 0 1 1 *
60 * * * *
61 * * * *
-1 * * * *
0-60 * * * *
60-61 * * * *
30-20 * * * *
60/5 * * * *
*/0 * * * *
*/-0 * * * *
*/-1 * * * *
*/x * * * *
*/ * * * *
*/5/2 * * * *
/5 * * * *
5/ * * * *
5- * * * *
- * * * *
-- * * * *
1-2-3 * * * *
1-2-3/4 * * * *
1-2/3/4 * * * *
*5 * * * *
5* * * * *
** * * * *
?? * * * *
x * * * *
1x * * * *
x-5 * * * *
5-x * * * *
1.5 * * * *
1_0 * * * *
0x5 * * * *
++5 * * * *
+ * * * *
1;2 * * * *
1,x * * * *
1,60 * * * *
5-* * * * *
jan * * * *
L * * * *
99999999999999999999 * * * *
*/99999999999999999999 * * * *
*/9223372036854775808 * * * *
0-99999999999999999999 * * * *
* 24 * * *
* 25 * * *
* 0-24 * * *
* 5-4 * * *
* mon * * *
* * 0 * *
* * 32 * *
* * 0-5 * *
* * 10-5 * *
* * 0/5 * *
* * 32/5 * *
* * L * *
* * 15W * *
* * 1#2 * *
* * * 0 *
* * * 13 *
* * * mar-jan *
* * * january *
* * * ja *
* * * mon *
* * * 1-13 *
* * * jan-foo *
* * * * 7
* * * * 0-7
* * * * 7/2
* * * * -1
* * * * fri-mon
* * * * sunday
* * * * jan
* * * * 5L
* * * * 1#1
* * * * sat-sun
@
@Daily
@DAILY
@dayly
@reboot
@every
@every5m
@every x
@every 5
@every 5x
@every m
@every .
@every .s
@every 5 m
@every 1h 30m
@every  5m
@every 5M
@every 1d
@every 1w
@every --5m
@every +-5m
@every -
@every +
@every 00
@every 1,5h
@every 1h30
@every 1e3s
@every 1..5s
@every 9223372037s
@every 2562048h
@every 9999999999999999999s
@every 9223372036854775808ns
@daily *
@daily * * * *
@hourly foo
TZ=UTC
CRON_TZ=UTC
TZ=
CRON_TZ=
tz=UTC * * * * *
TZ=UTC * * * *
TZ=UTC @foo
TZ=UTC 60 * * * *
TZ=UTC TZ=UTC * * * * *
TZ=Mars/Olympus * * * * *
TZ=europe/berlin * * * * *
TZ=EUROPE/BERLIN @daily
TZ=utc * * * * *
TZ=Etc/Unknown * * * * *
TZ=/etc/localtime * * * * *
TZ=../UTC * * * * *
TZ=UTC+1 * * * * *
TZ=+01:00 * * * * *
TZ=EST5EDT,M3.2.0,M11.1.0 * * * * *
TZ=A=B * * * * *
TZ:UTC * * * * *
* * * * * command
`

var oddBadSpecs = []string{
	"@every 5m ",
	"@daily ",
	" @daily",
	"TZ=UTC ",
	" TZ=UTC * * * * *",
	"",
	" ",
	"\t\n",
	"\x00 * * * *",
	"５ * * * *",
	"* * * * ſun",
	"TZ=UTC\t* * * * *",
	"@daily\n",
	"@every 5m\n",
	"@every 5\u00b5",
	"@every ٥s",
}

// zone, time, spec
const clockChanges = `
Europe/Berlin 2026-03-28T00:00:00Z 30 2 * * *
Europe/Berlin 2026-03-28T00:00:00Z 0 2 * * *
Europe/Berlin 2026-03-28T00:00:00Z 0 3 * * *
Europe/Berlin 2026-03-28T20:00:00Z 30 * * * *
Europe/Berlin 2026-03-29T00:00:00Z */20 * * * *
Europe/Berlin 2026-03-29T00:59:59Z * * * * *
Europe/Berlin 2026-03-28T12:00:00Z 0 0 * * *
Europe/Berlin 2026-03-28T22:00:00Z 0 */2 * * *
Europe/Berlin 2026-03-01T00:00:00Z 30 2 29 3 *
Europe/Berlin 2026-03-01T00:00:00Z 30 2 * * 0
Europe/Berlin 2026-10-24T00:00:00Z 30 2 * * *
Europe/Berlin 2026-10-24T00:00:00Z 0 3 * * *
Europe/Berlin 2026-10-24T22:30:00Z 30 * * * *
Europe/Berlin 2026-10-25T00:10:00Z */20 2 * * *
Europe/Berlin 2026-10-25T00:45:00Z 30 2 * * *
Europe/Berlin 2026-10-25T01:15:00Z 0 2 * * *
Europe/Berlin 2026-10-25T01:15:00Z 15,45 1-3 * * *
Europe/Berlin 2026-10-25T01:45:00Z 30 1 * * *
Europe/Berlin 2026-10-24T12:00:00Z @daily
Europe/Berlin 2026-10-24T23:30:00Z @hourly
Europe/Berlin 2026-10-24T23:30:00.5Z @every 1h
Europe/Berlin 2080-03-30T00:00:00Z 30 2 * * *
America/New_York 2026-03-07T00:00:00Z 30 2 * * *
America/New_York 2026-03-07T00:00:00Z 0 2 * * *
America/New_York 2026-03-08T06:00:00Z 15 * * * *
America/New_York 2026-03-08T06:59:59.999Z * * * * *
America/New_York 2026-03-07T12:00:00Z 0 0 * * *
America/New_York 2026-03-01T12:00:00Z 30 2 8 3 *
America/New_York 2026-10-31T00:00:00Z 30 1 * * *
America/New_York 2026-10-31T00:00:00Z 0 2 * * *
America/New_York 2026-11-01T04:30:00Z 0 * * * *
America/New_York 2026-11-01T05:45:00Z 30 1 * * *
America/New_York 2026-11-01T06:15:00Z 0 1 * * *
America/New_York 2026-11-01T06:15:00Z 0 0 * * *
America/New_York 2007-03-10T12:00:00Z 30 2 * * *
America/New_York 1974-01-05T12:00:00Z 30 2 * * *
America/Sao_Paulo 2018-11-02T12:00:00Z 0 0 * * *
America/Sao_Paulo 2018-11-02T12:00:00Z 30 0 * * *
America/Sao_Paulo 2018-11-02T12:00:00Z 0 1 * * *
America/Sao_Paulo 2018-11-02T12:00:00Z 0 5 4 11 *
America/Sao_Paulo 2018-11-02T12:00:00Z 0 0 4 11 *
America/Sao_Paulo 2018-11-01T12:00:00Z 0 5 * * 0
America/Sao_Paulo 2018-11-04T02:30:00Z * * * * *
America/Sao_Paulo 2018-11-03T12:00:00Z @hourly
America/Sao_Paulo 2018-10-20T12:00:00Z 0 0 5 11 *
America/Sao_Paulo 2018-02-16T12:00:00Z 30 23 * * *
America/Sao_Paulo 2018-02-16T12:00:00Z 0 0 * * *
America/Sao_Paulo 2018-02-18T01:15:00Z */30 * * * *
America/Sao_Paulo 2018-02-18T02:15:00Z 0 23 * * *
America/Sao_Paulo 2018-01-10T12:00:00Z 0 0 18 2 *
Australia/Lord_Howe 2026-10-02T12:00:00Z 0 2 * * *
Australia/Lord_Howe 2026-10-02T12:00:00Z 15 2 * * *
Australia/Lord_Howe 2026-10-02T12:00:00Z 45 2 * * *
Australia/Lord_Howe 2026-10-03T14:00:00Z */15 * * * *
Australia/Lord_Howe 2026-10-03T15:20:00Z 0 3 * * *
Australia/Lord_Howe 2026-04-03T12:00:00Z 45 1 * * *
Australia/Lord_Howe 2026-04-03T12:00:00Z 0 2 * * *
Australia/Lord_Howe 2026-04-04T14:00:00Z 15 * * * *
Australia/Lord_Howe 2026-04-04T14:40:00Z */20 * * * *
Australia/Lord_Howe 2026-04-04T15:10:00Z 0 2 * * *
Australia/Lord_Howe 2026-04-04T15:10:00Z 0 0 * * *
Asia/Kolkata 2026-03-28T18:29:59Z 0 0 * * *
Asia/Kolkata 2026-03-28T18:30:00Z 0 * * * *
Asia/Kolkata 2026-03-28T18:45:10Z */25 * * * *
Asia/Kolkata 2026-02-28T18:29:59.999Z 0 0 1 * *
Asia/Kolkata 2026-12-31T00:00:00Z @yearly
Pacific/Apia 2011-12-28T00:00:00Z 0 0 * * *
Pacific/Apia 2011-12-29T00:00:00Z 0 12 * * *
Pacific/Apia 2011-12-30T08:00:00Z 0 * * * *
Pacific/Apia 2011-12-30T09:30:00Z */15 * * * *
Pacific/Apia 2011-12-01T00:00:00Z 0 0 31 12 *
Pacific/Apia 2011-12-29T00:00:00Z 0 0 30 12 *
Pacific/Apia 2011-12-29T00:00:00Z 0 5 * * sat
Antarctica/McMurdo 1955-12-31T21:08:02Z 42-59,22 18 */4 * ?
America/Bahia 1989-10-15T01:58:20Z 0 4 * * 6
America/Bahia 1989-10-15T03:59:10Z 0 4 * * 6
Pacific/Apia 2012-03-31T00:00:00Z 30 3 * * *
Africa/Cairo 2025-04-20T00:00:00Z 0 5 25 4 *
Africa/Cairo 2025-04-20T00:00:00Z 0 0 * * *
Africa/Cairo 2025-04-23T00:00:00Z 0 5 * * fri
Africa/Cairo 2025-10-30T12:00:00Z 30 23 * * *
Asia/Beirut 2022-03-25T12:00:00Z 0 0 * * *
Asia/Beirut 2022-03-20T12:00:00Z 0 4 27 3 *
America/Asuncion 2022-09-20T00:00:00Z 0 4 2 10 *
America/Asuncion 2022-09-30T12:00:00Z 0 0 * * *
America/Havana 2022-03-11T12:00:00Z 0 0 * * *
America/Havana 2022-11-05T12:00:00Z 30 0 * * *
America/Havana 2022-11-05T12:00:00Z 0 0 6 11 *
Asia/Amman 2022-02-20T12:00:00Z 0 0 25 2 *
America/St_Johns 2009-10-31T07:02:01Z 7,37 * * * 0-4
America/St_Johns 2009-11-01T02:45:00Z 0 0 * * *
America/St_Johns 2009-10-31T12:00:00Z 0 0 * * *
America/St_Johns 2009-10-31T12:00:00Z 30 23 * * *
America/St_Johns 2009-03-07T12:00:00Z 0 0 * * *
America/St_Johns 2009-03-07T12:00:00Z 30 0 8 3 *
Europe/London 2026-03-28T12:00:00Z 30 1 * * *
Europe/London 2026-10-24T12:00:00Z 30 1 * * *
Europe/Dublin 2026-10-24T12:00:00Z 30 1 * * *
Africa/Casablanca 2026-02-14T12:00:00Z 30 2 * * *
Antarctica/Troll 2026-03-28T12:00:00Z 30 2 * * *
Antarctica/Troll 2026-10-24T12:00:00Z 30 2 * * *
Asia/Pyongyang 2018-05-04T12:00:00Z 45 23 * * *
America/Caracas 2016-04-30T12:00:00Z 45 2 * * *
Atlantic/Azores 2026-03-28T12:00:00Z 30 0 * * *
Atlantic/Azores 2026-10-24T12:00:00Z 30 0 * * *
UTC 2026-12-31T23:59:59.999Z * * * * *
UTC 2026-12-31T23:59:00Z 0 0 1 1 *
UTC 2024-02-28T23:59:59Z 0 0 29 2 *
UTC 2096-02-29T00:00:00Z 0 0 29 2 *
UTC 1969-12-31T23:59:58.5Z * * * * *
UTC 1969-12-31T23:59:58.5Z @every 1s
UTC 1899-01-01T00:00:00Z 0 0 29 2 *
UTC 2026-11-24T00:00:00Z 0 0 31 12 4
UTC 2016-12-31T23:59:30Z * * * * *
`
