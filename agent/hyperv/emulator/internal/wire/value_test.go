package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestValuesKeepTheirTypes(t *testing.T) {
	in := Values{
		"null": nil, "yes": true, "text": `"{}<`, "small": int64(0), "large": int64(math.MaxInt64), "negative": int64(-1),
		"texts": []string{"a", ""}, "no texts": []string{}, "numbers": []int64{math.MaxInt64, 0}, "no numbers": []int64{},
		"object":  wmi.Object{Class: "C", Path: "p", Properties: map[string]any{"n": int64(1), "s": []string{"x"}, "e": []int64{}}},
		"objects": []wmi.Object{{Class: "D"}},
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Values
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	for name, want := range in {
		if got := out[name]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", want, want) {
			t.Errorf("%s is %T %v, not %T %v", name, got, got, want, want)
		}
	}
	if o := out["object"].(wmi.Object); !reflect.DeepEqual(o.Properties, in["object"].(wmi.Object).Properties) {
		t.Errorf("the object is %v", o)
	}
}

func TestOtherTypesAreRefused(t *testing.T) {
	for _, value := range []any{1, 1.5, []any{}, map[string]any{}} {
		if _, err := json.Marshal(Values{"x": value}); !errors.Is(err, wmi.ErrInvalidParameter) {
			t.Errorf("%T: %v", value, err)
		}
	}
	for _, text := range []string{`{"x":1.5}`, `{"x":[1]}`, `{"x":{}}`, `{"x":{"strings":null}}`} {
		var v Values
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s became %v", text, v)
		}
	}
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	in := fmt.Errorf("read: %w: %w", virtdisk.ErrTrackingLost, wmi.ErrNotFound)
	text, err := json.Marshal(Answer[int]{Error: NewError(in)})
	if err != nil {
		t.Fatal(err)
	}
	var out Answer[int]
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(out.Error, virtdisk.ErrTrackingLost) || !errors.Is(out.Error, wmi.ErrNotFound) || errors.Is(out.Error, virtdisk.ErrInUse) {
		t.Errorf("%v lost what it was", out.Error)
	}
	if out.Error.Error() != in.Error() {
		t.Errorf("%q is not %q", out.Error, in)
	}
	if NewError(nil) != nil {
		t.Error("no error became one")
	}
}
