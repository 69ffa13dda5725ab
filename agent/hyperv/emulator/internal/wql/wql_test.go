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
