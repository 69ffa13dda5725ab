package runner

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/agent/meter"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// progressOf puts a reading of a meter into the words of the API. limit is the bandwidth that the transfer is limited to, zero for none.
func progressOf(read meter.Reading, now time.Time, stored, limit int64) *v1alpha1.Progress {
	p := &v1alpha1.Progress{
		BytesTotal: read.Total, BytesDone: read.Done, BytesStored: stored, BytesPerSecond: read.BytesPerSecond, Summary: read.String(),
	}
	if read.Left > 0 {
		eta := metav1.NewTime(now.Add(read.Left))
		p.EstimatedCompletionTime = &eta
	}
	if limit > 0 {
		p.Summary += fmt.Sprintf(", limited to %s/s", humanize.IBytes(uint64(limit)))
	}
	return p
}
