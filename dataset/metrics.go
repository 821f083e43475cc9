package dataset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Metric is one number of a task's evaluation, in percent.
type Metric struct {
	Name  string
	Value float64 // 0 to 100
}

// Metrics are a task's metrics in a fixed order.
type Metrics []Metric

// Primary is the task's one number, the mean of its metrics, as SuperGLUE averages them. It is 0
// where there are none.
func (m Metrics) Primary() float64 {
	if len(m) == 0 {
		return 0
	}
	var sum float64
	for _, one := range m {
		sum += one.Value
	}
	return sum / float64(len(m))
}

// Get returns the metric of a name.
func (m Metrics) Get(name string) (value float64, ok bool) {
	for _, one := range m {
		if one.Name == name {
			return one.Value, true
		}
	}
	return 0, false
}

// String is the metrics on one line with two decimals, such as "f1 71.25, em 70.00".
func (m Metrics) String() string {
	parts := make([]string, len(m))
	for i, one := range m {
		parts[i] = fmt.Sprintf("%s %.2f", one.Name, one.Value)
	}
	return strings.Join(parts, ", ")
}

// MarshalJSON gives an object of the metrics, in their order.
func (m Metrics) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, one := range m {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(one.Name)
		if err != nil {
			return nil, fmt.Errorf("name of metric %q: %w", one.Name, err)
		}
		value, err := json.Marshal(one.Value)
		if err != nil {
			return nil, fmt.Errorf("value of metric %q: %w", one.Name, err)
		}
		out.Write(name)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON wrote, in its order.
func (m *Metrics) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	if open == nil {
		return nil // null leaves a value as it is
	}
	if open != json.Delim('{') {
		return fmt.Errorf("metrics are %s, want an object of names and numbers", clip(string(data)))
	}
	*m = Metrics{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return fmt.Errorf("reading metrics: %w", err)
		}
		one := Metric{Name: fmt.Sprint(name)}
		if err := dec.Decode(&one.Value); err != nil {
			return fmt.Errorf("metric %q: %w", one.Name, err)
		}
		*m = append(*m, one)
	}
	return nil
}
