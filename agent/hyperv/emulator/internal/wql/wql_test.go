package wql

import "testing"

func TestConditions(t *testing.T) {
	instance := map[string]any{"Name": "Web 1", "State": int64(2), "On": true, "Path": `a\b'c`, "None": nil, "List": []string{"x"}}
	for text, want := range map[string]bool{
		`SELECT * FROM C`:                                 true,
		`SELECT * FROM C WHERE Name = 'web 1'`:            true,
		`SELECT * FROM C WHERE Name = "Web 1"`:            true,
		`SELECT * FROM C WHERE Name <> 'web 1'`:           false,
		`SELECT * FROM C WHERE Name != 'x' AND State < 3`: true,
		`SELECT * FROM C WHERE State > 2 OR State <= 2`:   true,
		`SELECT * FROM C WHERE State >= -1`:               true,
		`SELECT * FROM C WHERE On = TRUE`:                 true,
		`SELECT * FROM C WHERE On = false`:                false,
		`SELECT * FROM C WHERE Path = 'a\\b\'c'`:          true,
		`SELECT * FROM C WHERE None = 'x'`:                false,
		`SELECT * FROM C WHERE NOT None = 'x'`:            false, // neither true nor false
		`SELECT * FROM C WHERE None IS NULL`:              true,
		`SELECT * FROM C WHERE Name IS NOT NULL`:          true,
		`SELECT * FROM C WHERE None = 1 OR State = 2`:     true,
		`SELECT * FROM C WHERE Name LIKE 'w%'`:            true,
		`SELECT * FROM C WHERE Name LIKE '%b_1'`:          true,
		`SELECT * FROM C WHERE Name LIKE 'web [0-3]'`:     true,
		`SELECT * FROM C WHERE Name LIKE 'web [^1]'`:      false,
		`SELECT * FROM C WHERE Name LIKE 'web'`:           false,
	} {
		q, err := Parse(text)
		if err != nil {
			if want {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		got, err := q.Matches(func(name string) any { return instance[name] })
		if err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
}

func TestMistakesAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `SELECT`, `SELECT FROM C`, `SELECT * C`, `SELECT * FROM`, `SELECT * FROM C WHERE`, `SELECT * FROM C WHERE A`, `SELECT * FROM C WHERE A =`,
		`SELECT * FROM C WHERE A = 'x`, `SELECT * FROM C WHERE A = 'x' AND`, `SELECT * FROM C WHERE (A = 1`, `SELECT * FROM C WHERE A = B`, `SELECT * FROM C x`,
		`SELECT a, FROM C`, `SELECT * FROM C WHERE A LIKE 1`, `SELECT * FROM C WHERE A = 1e5`, `SELECT * FROM C WHERE A = 'a\b'`, `SELECT * FROM C;`,
		`SELECT * FROM C WHERE A ! 1`, `SELECT * FROM C WHERE A IS 1`, `DELETE FROM C`,
	} {
		if q, err := Parse(text); err == nil {
			t.Errorf("%q became %+v", text, q)
		}
	}
	for _, text := range []string{`SELECT * FROM C WHERE State = 'x'`, `SELECT * FROM C WHERE List = 'x'`, `SELECT * FROM C WHERE State LIKE 'x'`} {
		q, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Matches(func(name string) any {
			return map[string]any{"State": int64(2), "List": []string{"x"}}[name]
		}); err == nil {
			t.Errorf("%q compares what cannot be compared", text)
		}
	}
}

type class string

func (c class) Is(name string) bool { return string(c) == name }

func TestEventQueries(t *testing.T) {
	event := map[string]any{
		"TargetInstance": class("VM"), "TargetInstance.State": int64(3), "PreviousInstance.State": int64(2), "TargetInstance.Owner": nil,
	}
	const from = "SELECT * FROM E WITHIN 0.5 WHERE TargetInstance ISA 'VM' "
	for text, want := range map[string]bool{
		from: true,
		from + "AND TargetInstance.State <> PreviousInstance.State":                true,
		from + "AND TargetInstance.State = PreviousInstance.State":                 false,
		from + "AND TargetInstance.Owner != PreviousInstance.State":                false, // neither true nor false
		from + "AND PreviousInstance.State != TargetInstance.Owner":                false,
		from + "AND TargetInstance.State = 3":                                      true,
		"SELECT * FROM E WITHIN 1 WHERE (TargetInstance ISA 'Disk')":               false,
		"SELECT * FROM E WITHIN 1 WHERE PreviousInstance ISA 'VM'":                 false,
		"SELECT * FROM E WITHIN 1 WHERE X = 1 AND (TargetInstance ISA 'VM')":       false,
		"SELECT * FROM E WITHIN 1 WHERE NOT X = 1 AND TargetInstance ISA 'Others'": false,
	} {
		q, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := q.Matches(func(name string) any { return event[name] })
		if err != nil || got != want || q.Within == 0 {
			t.Errorf("%s is %v within %v, %v", text, got, q.Within, err)
		}
	}
	for text, want := range map[string]string{
		from: "VM", "SELECT * FROM E WHERE X = 1 AND TargetInstance ISA 'Disk'": "Disk",
		"SELECT * FROM E WHERE X = 1 OR TargetInstance ISA 'Disk'": "", "SELECT * FROM E": "", "SELECT * FROM E WHERE PreviousInstance ISA 'Disk'": "",
	} {
		if q, err := Parse(text); err != nil || q.Target("TargetInstance") != want {
			t.Errorf("%s is about %q, not %q: %v", text, q.Target("TargetInstance"), want, err)
		}
	}
	for _, text := range []string{
		"SELECT * FROM E WITHIN WHERE A = 1", "SELECT * FROM E WITHIN x", "SELECT * FROM E WITHIN 0", "SELECT * FROM E WITHIN -1", "SELECT * FROM E WITHIN 1..5",
		"SELECT * FROM E WITHIN 1e999", "SELECT * FROM E WHERE A ISA", "SELECT * FROM E WHERE A ISA 1", "SELECT * FROM E WHERE A.B LIKE C.D",
	} {
		if q, err := Parse(text); err == nil {
			t.Errorf("%q became %+v", text, q)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`SELECT a, b FROM C WHERE NOT (A = 'x\\y' OR B <> 3) AND C LIKE '[a-z]%' AND D IS NOT NULL`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text)
		if err != nil {
			return
		}
		_, _ = q.Matches(func(string) any { return "text" }) // must not panic
	})
}
