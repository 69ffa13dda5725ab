package report

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestConditionsKeepTheirTransitionTime(t *testing.T) {
	g := NewWithT(t)
	var list []metav1.Condition
	start := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	ConditionsOf(&list, 1, start).True("Ready", "Fine", "all is well")
	ConditionsOf(&list, 2, start.Add(time.Hour)).True("Ready", "Fine", "all is still well")
	g.Expect(list).To(HaveLen(1))
	g.Expect(list[0].LastTransitionTime.Time).To(Equal(start.Truncate(time.Second)))
	g.Expect(list[0].ObservedGeneration).To(Equal(int64(2)))

	ConditionsOf(&list, 2, start.Add(2*time.Hour)).False("Ready", "Broken", "it broke")
	g.Expect(list[0].LastTransitionTime.Time).To(Equal(start.Truncate(time.Second).Add(2 * time.Hour)))
}

func TestReconcilingAndStalledExcludeEachOther(t *testing.T) {
	kinds := func(list []metav1.Condition) (found []string) {
		for _, condition := range list {
			found = append(found, condition.Type)
		}
		return found
	}
	g := NewWithT(t)
	var list []metav1.Condition
	conditions := ConditionsOf(&list, 1, time.Now())
	conditions.Reconciling("Running", "runs")
	g.Expect(kinds(list)).To(ConsistOf(v1alpha1.ConditionReconciling))
	conditions.Stalled("Broken", "it broke")
	g.Expect(kinds(list)).To(ConsistOf(v1alpha1.ConditionStalled))
	conditions.Settled()
	g.Expect(list).To(BeEmpty())
}

func TestWaits(t *testing.T) {
	now := time.Now()
	short, long := Wait{For: time.Second, Because: "short"}, Wait{For: time.Minute, Because: "long"}
	due := Until(now, now.Add(-time.Hour), "due already")
	for name, c := range map[string]struct{ a, b, want Wait }{
		"nothing to wait for":         {Wait{}, Wait{}, Wait{}},
		"one wait alone":              {Wait{}, long, long},
		"the other alone":             {long, Wait{}, long},
		"the shorter counts":          {long, short, short},
		"the order does not matter":   {short, long, short},
		"what is due comes before it": {short, due, due},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(c.a.Sooner(c.b)).To(Equal(c.want))
		})
	}
	NewWithT(t).Expect(due.result(context.Background()).RequeueAfter).To(BeNumerically(">", 0))
	NewWithT(t).Expect(Wait{}.result(context.Background()).RequeueAfter).To(BeZero())
}

func TestTruncateCutsBetweenCharacters(t *testing.T) {
	g := NewWithT(t)
	g.Expect(truncate("short", 5)).To(Equal("short"))
	cut := truncate(strings.Repeat("ä", 100), 50)
	g.Expect(len(cut)).To(BeNumerically("<=", 50))
	g.Expect(utf8.ValidString(cut)).To(BeTrue())
	g.Expect(cut).To(HaveSuffix("..."))
}
