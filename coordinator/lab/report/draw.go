package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/dptune/dpt/model/checkpoint"
)

// palette is the one of Okabe and Ito, whose colours people with colour blindness can tell apart.
// Lines of methods have the colours at the places of methodOrder.
var palette = []color.RGBA{
	{0, 0, 0, 255},
	{230, 159, 0, 255},
	{0, 158, 115, 255},
	{0, 114, 178, 255},
	{204, 121, 167, 255},
	{86, 180, 233, 255},
	{213, 94, 0, 255},
}

const (
	panelWidth  = 9 * vg.Centimeter
	panelHeight = 7 * vg.Centimeter
	dotsPerInch = 150
)

// write draws the figure into dir as SVG and as PNG.
func (f figure) write(dir string) error {
	// Lines may differ in length; plot.Align wants a rectangle, with nil where there is no panel.
	width := 0
	for _, line := range f.panels {
		width = max(width, len(line))
	}
	if width == 0 {
		return fmt.Errorf("figure %s: no panels", f.name)
	}
	w, h := panelWidth*vg.Length(width), panelHeight*vg.Length(len(f.panels))
	plots := make([][]*plot.Plot, len(f.panels))
	for i, line := range f.panels {
		plots[i] = make([]*plot.Plot, width)
		for j, p := range line {
			var err error
			if plots[i][j], err = p.plot(); err != nil {
				return fmt.Errorf("figure %s, %s: %w", f.name, p.title, err)
			}
		}
	}

	// Draw the same plots on both canvases.
	svg := vgsvg.New(w, h)
	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dotsPerInch))}
	for _, out := range []struct {
		canvas vg.CanvasSizer
		from   io.WriterTo
		suffix string
	}{{svg, svg, ".svg"}, {png, png, ".png"}} {
		canvas := draw.New(out.canvas)
		tiles := draw.Tiles{
			Rows:      len(plots),
			Cols:      width,
			PadX:      vg.Centimeter / 2,
			PadY:      vg.Centimeter / 2,
			PadTop:    vg.Centimeter / 4,
			PadRight:  vg.Centimeter / 4,
			PadBottom: vg.Centimeter / 4,
			PadLeft:   vg.Centimeter / 4,
		}
		for i, line := range plot.Align(plots, tiles, canvas) {
			for j, c := range line {
				if plots[i][j] != nil {
					plots[i][j].Draw(c)
				}
			}
		}
		var b bytes.Buffer
		if _, err := out.from.WriteTo(&b); err != nil {
			return fmt.Errorf("figure %s: %w", f.name, err)
		}
		if err := checkpoint.WriteFileAtomic(filepath.Join(dir, f.name+out.suffix), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// plot is the panel as a plot.
func (p panel) plot() (*plot.Plot, error) {
	l := plot.New()
	l.Title.Text, l.X.Label.Text, l.Y.Label.Text = p.title, p.x, p.y
	l.Legend.Top = true
	l.Legend.TextStyle.Font.Size = font.Length(9)
	l.Legend.Padding = vg.Points(2)
	l.BackgroundColor = color.White
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	l.Add(grid)
	if p.names != nil {
		return l, p.addBars(l)
	}
	if p.log {
		l.X.Scale = plot.LogScale{}
	}
	if p.ticks != nil {
		var marks plot.ConstantTicks
		for _, v := range p.ticks {
			marks = append(marks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
		}
		l.X.Tick.Marker = marks
	}
	for _, s := range p.series {
		if err := s.addLine(l, len(p.series) > 1); err != nil {
			return nil, err
		}
	}
	p.scaleAxes(l)
	return l, nil
}

// scaleAxes gives the y axis room for the legend above the lines, and the x axis a range around a
// single value.
func (p panel) scaleAxes(l *plot.Plot) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range p.series {
		for _, v := range s.points {
			low, high = math.Min(low, v.low), math.Max(high, v.high)
		}
	}
	room := math.Max(high-low, 1)
	l.Y.Min, l.Y.Max = low-0.05*room, high+(0.1+0.08*float64(len(p.series)))*room
	if l.X.Min == l.X.Max {
		if p.log {
			l.X.Min, l.X.Max = l.X.Min/2, l.X.Max*2
		} else {
			l.X.Min, l.X.Max = l.X.Min-1, l.X.Max+1
		}
	}
}

// addLine adds the series as a line with its points and, if seeds differ, bars from the least to
// the greatest value. Unless it is dashed, it is in the legend only if it is one of several.
func (s series) addLine(l *plot.Plot, several bool) error {
	xy := make(plotter.XYs, len(s.points))
	bars := errorPoints{XYs: xy, YErrors: make(plotter.YErrors, len(s.points))}
	spread := false
	for i, p := range s.points {
		xy[i] = plotter.XY{X: p.x, Y: p.y}
		bars.YErrors[i].Low, bars.YErrors[i].High = p.low-p.y, p.high-p.y
		spread = spread || p.low < p.high
	}
	line, err := plotter.NewLine(xy)
	if err != nil {
		return err
	}
	line.Color, line.Width = palette[s.color%len(palette)], vg.Points(1.5)
	if s.dashed {
		line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		l.Add(line)
		l.Legend.Add(s.name, line)
		return nil
	}
	dots, err := plotter.NewScatter(xy)
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: line.Color, Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}
	if len(xy) > 40 {
		dots.Radius = vg.Points(1)
	}
	l.Add(line, dots)
	if several {
		l.Legend.Add(s.name, line, dots)
	}
	if !spread {
		return nil
	}
	e, err := plotter.NewYErrorBars(bars)
	if err != nil {
		return err
	}
	e.Color, e.Width = line.Color, vg.Points(0.75)
	l.Add(e)
	return nil
}

// errorPoints implements the interfaces that plotter.NewYErrorBars wants.
type errorPoints struct {
	plotter.XYs
	plotter.YErrors
}

// addBars adds the series as groups of bars over the named categories.
func (p panel) addBars(l *plot.Plot) error {
	width := vg.Points(min(24, 110/float64(len(p.series)*len(p.names))))
	high := 0.0
	for i, s := range p.series {
		values := make(plotter.Values, len(p.names))
		for _, v := range s.points {
			values[int(v.x)] = v.y
			high = math.Max(high, v.y)
		}
		b, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		b.Color, b.LineStyle.Width = palette[s.color%len(palette)], 0
		b.Offset = width * vg.Length(float64(i)-float64(len(p.series)-1)/2)
		l.Add(b)
		l.Legend.Add(s.name, b)
	}
	l.NominalX(p.names...)
	l.Y.Min, l.Y.Max = 0, high*(1.1+0.07*float64(len(p.series)))
	return nil
}
