package image

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotgc"
)

var markVMs = flag.Int("mark.vms", 100, "VMs of BenchmarkMark; kopia's own collection takes long with many")

// BenchmarkMark shows what the mark phase costs, in CPU time, beside kopia's own: images of the same chains add the segments that changed, their own
// root lists and directories, and no more. One VM has 32 segments, 2 GiB; each image changes one of them. "Mark/./ours$" leaves kopia's out.
func BenchmarkMark(b *testing.B) {
	f := newForest(b, *markVMs, 32)
	grown := 0
	for _, images := range []int{10, 30, 90} {
		b.Run(fmt.Sprintf("images=%d", images), func(b *testing.B) {
			f.grow(grown, images)
			grown = images
			b.Run("ours", func(b *testing.B) {
				segments := *markVMs * (32 + images)
				lists := segments + *markVMs*images*(1+3) // a root list and three directories
				for b.Loop() {
					before := cpuTime(b)
					n := f.marked()
					used := float64((cpuTime(b) - before).Microseconds())
					b.ReportMetric(float64(n), "contents")
					b.ReportMetric(float64(segments), "segments")
					b.ReportMetric(used/float64(segments), "cpu-us/segment")
					b.ReportMetric(used/float64(lists), "cpu-us/list")
				}
			})
			b.Run("kopia", func(b *testing.B) {
				for b.Loop() {
					before := cpuTime(b)
					if err := snapshotgc.Run(b.Context(), f.w, true, maintenance.SafetyFull, time.Now()); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric((cpuTime(b) - before).Seconds(), "cpu-s")
				}
			})
		})
	}
}

// cpuTime is what this process has used since it began, to the hundredth of a second ([proc_pid_stat(5)], fields 14 and 15).
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		b.Skip(err)
	}
	_, behindName, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(behindName)
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
